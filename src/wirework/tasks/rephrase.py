"""Rephrasing of a task: other lines of code before the prompt, other names, other numbers.

A circuit must not depend on these. Held-out pairs of the same generator do not test that.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from random import Random

from wirework.tasks.load import load_task
from wirework.tasks.snippets import ANSWER_NAMES, FILE_NAMES, NAMES, top_line
from wirework.tasks.task import Pair, Task

_UNCHANGED = (
    r"'[^'\n]*'?|\"[^\"\n]*\"?|#[^\n]*"  # strings and comments stay: they may decide the answer
)
_PART = re.compile(rf"{_UNCHANGED}|(?P<other>(?<![\w.])\d+(?![\w.])|[^\W\d]\w*)")
_KEYWORD = re.compile(r"\b(\w+)=(?!=)")
_MAX_DIGITS = 9


def rephrased(task: Task | str | Path, seed: int) -> Task:
    """Return a task of pairs with the same meaning, for Python prompts that begin at top level.

    In the prompts and answers of a pair, outside strings and comments, each name of
    `snippets.NAMES` is replaced by another one and each integer above 1 by another of as many
    digits; one or two irrelevant lines are put in front. The result for a pair depends only on the
    pair and the seed.

    Args:
        task: a task with Python prompts, or what `load_task` takes.
        seed: of the names, numbers and lines.

    Returns:
        The pairs in the same order; `fitted` drops those that do not fit a tokeniser. `path` is
        None: `load_task` cannot load this task.
    """
    task = load_task(task)
    pairs = {(new := _rephrased(pair, seed)).content: new for pair in task.pairs}
    name = f"{task.name}, rephrased"
    return replace(task, name=name, pairs=tuple(pairs.values()), generated=True, path=None)


def _rephrased(pair: Pair, seed: int) -> Pair:
    rng = Random(f"rephrased {seed} {pair.prompts[0]}")
    texts = (*pair.prompts, *pair.answers)
    new = _other_names(texts, rng) | _other_numbers(texts, rng)
    front = "".join(f"{top_line(rng)}\n" for _ in range(rng.randint(1, 2)))
    answers = frozenset(answer.strip() for answer in pair.answers)
    prompts = [f"{front}{_replaced(prompt, new, answers)}" for prompt in pair.prompts]
    first, second = (_replaced(answer, new, answers) for answer in pair.answers)
    return Pair((prompts[0], prompts[1]), (first, second), pair.template)


def _replaced(text: str, new: Mapping[str, str], answers: frozenset[str]) -> str:
    """Replace names, and answers inside a name such as `my_value`, which say what is copied."""

    def changed(part: re.Match[str]) -> str:
        if part["other"] is None:
            return part[0]
        words = part[0].split("_")
        if len(words) == 1 or answers.isdisjoint(words):
            return new.get(part[0], part[0])
        return "_".join(new.get(word, word) if word in answers else word for word in words)

    return _PART.sub(changed, text)


def _other_names(texts: Iterable[str], rng: Random) -> dict[str, str]:
    """Return a permutation of the names within each group.

    Names that can be answers, or that say whether a file is read or written, keep that property. A
    name directly followed by `=` stays: it may be a keyword argument.
    """
    kept = {name for text in texts for name in _KEYWORD.findall(text)}
    new: dict[str, str] = {}
    other_names = [name for name in NAMES if name not in (*ANSWER_NAMES, *FILE_NAMES)]
    for group in (ANSWER_NAMES, FILE_NAMES, other_names):
        free = [name for name in group if name not in kept]
        new |= zip(free, rng.sample(free, len(free)), strict=True)
    return new


def _other_numbers(texts: Iterable[str], rng: Random) -> dict[str, str]:
    """Return distinct replacements for distinct numbers; 0 and 1 stay, as they often matter."""
    parts = {part["other"] or "" for text in texts for part in _PART.finditer(text)}
    numbers = sorted((text for text in parts if text.isdecimal()), key=lambda n: (len(n), n))
    new: dict[str, str] = {}
    for digits, group in groupby(numbers, len):
        free = [text for text in group if text[0] != "0" and text != "1" and digits <= _MAX_DIGITS]
        others = rng.sample(range(max(2, 10 ** (digits - 1)), 10**digits), len(free))
        new |= zip(free, map(str, others), strict=True)
    return new
