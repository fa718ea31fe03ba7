"""The same pairs in other words: other code in front, other names, other numbers.

What a circuit does must not hang on those (held-out pairs of the same generator share them).
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

_KEPT = r"'[^'\n]*'?|\"[^\"\n]*\"?|#[^\n]*"  # a file's name may decide, or how a string was opened
_PART = re.compile(rf"{_KEPT}|(?P<other>(?<![\w.])\d+(?![\w.])|[^\W\d]\w*)")
_KEYWORD = re.compile(r"\b(\w+)=(?!=)")
_MOST_DIGITS = 9


def rephrased(task: Task | str | Path, seed: int) -> Task:
    """Return a task of pairs that mean the same; for prompts in Python that begin at top level.

    In both prompts of a pair and in its answers, each name of `snippets.NAMES` becomes another one
    and each whole number above 1 another of as many digits, outside strings and comments; one or
    two lines that decide nothing stand in front. What a pair becomes depends on it and on the seed
    alone.

    Args:
        task: of Python prompts; itself, or what `load_task` takes.
        seed: of the names, numbers and lines.

    Returns:
        The pairs in the same order; those that do not fit a tokeniser are left out by `fitted`.
        `load_task` does not know them: `path` is None.
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
    prompts = [f"{front}{_replaced(prompt, new)}" for prompt in pair.prompts]
    left, right = (_replaced(answer, new) for answer in pair.answers)
    return Pair((prompts[0], prompts[1]), (left, right))


def _replaced(text: str, new: Mapping[str, str]) -> str:
    return _PART.sub(lambda part: new.get(part["other"], part[0]), text)


def _other_names(texts: Iterable[str], rng: Random) -> dict[str, str]:
    """Return a permutation of the names within each group, so that a name may be an answer after it
    if it might before, and tells of a file what it told.

    A name with `=` right behind it stays: it may be an argument that a function knows by its name.
    """
    kept = {name for text in texts for name in _KEYWORD.findall(text)}
    new: dict[str, str] = {}
    other_names = [name for name in NAMES if name not in (*ANSWER_NAMES, *FILE_NAMES)]
    for group in (ANSWER_NAMES, FILE_NAMES, other_names):
        free = [name for name in group if name not in kept]
        new |= zip(free, rng.sample(free, len(free)), strict=True)
    return new


def _other_numbers(texts: Iterable[str], rng: Random) -> dict[str, str]:
    """Return different numbers for different ones; 0 and 1 stay, which often mean more."""
    texts_found = {part["other"] or "" for text in texts for part in _PART.finditer(text)}
    numbers = sorted((text for text in texts_found if text.isdecimal()), key=lambda n: (len(n), n))
    new: dict[str, str] = {}
    for digits, group in groupby(numbers, len):
        free = [text for text in group if text[0] != "0" and text != "1" and digits <= _MOST_DIGITS]
        others = rng.sample(range(max(2, 10 ** (digits - 1)), 10**digits), len(free))
        new |= zip(free, map(str, others), strict=True)
    return new
