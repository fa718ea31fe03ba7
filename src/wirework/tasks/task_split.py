"""Split of a task: pairs that train masks, pairs that judge circuits, and held-out pairs.

Pairs are held out in two ways: some pairs of the templates that train and judge, and all pairs of a
quarter of the templates, which no search sees.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

from wirework.errors import InputError, number_of
from wirework.tasks import Pair, Task

_MIN_PAIRS = 4
MIN_TEMPLATES = 4
"""Fewest templates of a task of which a quarter is held out."""


class Parts(NamedTuple):
    """Parts of a task that share neither a pair nor a prompt."""

    train: Task
    """Training pairs: masks are trained on them. At least half, unless pairs share prompts."""
    judge: Task
    """Judging pairs: circuits are discretised and measured on them. At most a quarter."""
    held_out: Task
    """Held-out pairs: used only to validate the circuit. A quarter."""
    held_out_templates: Task | None = None
    """Pairs of the templates that neither train nor judge; None: the task has too few templates."""


def parts_of(task: Task, judge_pairs: int, seed: int, *, hold_out_templates: bool = True) -> Parts:
    """Split a task: a pure function of its pairs, `judge_pairs`, the seed and the flag.

    The pairs of a quarter of the templates are set aside first, if there are `MIN_TEMPLATES` and
    `hold_out_templates` is true. Pairs that share a prompt, directly or through other pairs, go to
    the same part. A group of such pairs that is too large is cut: each prompt is assigned to one
    part, and pairs with prompts in two parts are dropped.

    Raises:
        InputError: fewer than 4 pairs, or so many shared prompts that a part is empty.
    """
    count = len(task.pairs)
    if count < _MIN_PAIRS:
        raise InputError(
            f"task {task.name} has {number_of(count, 'pair')}, at least {_MIN_PAIRS} are needed"
        )
    apart = held_out_templates(task, seed) if hold_out_templates else None
    if apart is not None:
        seen = task.take([pair for pair in task.pairs if pair.template not in apart])
        unseen = task.take([pair for pair in task.pairs if pair.template in apart])
        used = {prompt for pair in seen.pairs for prompt in pair.prompts}
        unseen = unseen.take([pair for pair in unseen.pairs if used.isdisjoint(pair.prompts)])
        parts = _parts_of(seen, judge_pairs, seed)
        return parts._replace(held_out_templates=unseen if unseen.pairs else None)
    return _parts_of(task, judge_pairs, seed)


def held_out_templates(task: Task, seed: int) -> frozenset[str] | None:
    """Return the templates whose pairs no search sees: a quarter of them, drawn with the seed.

    Returns:
        None if the task has fewer than `MIN_TEMPLATES` templates, a pair without a template, or
        fewer than four pairs of the other templates.
    """
    templates = sorted({pair.template for pair in task.pairs if pair.template is not None})
    if len(templates) < MIN_TEMPLATES or any(pair.template is None for pair in task.pairs):
        return None
    Random(f"templates {seed}").shuffle(templates)
    apart = frozenset(templates[: max(1, len(templates) // 4)])
    n_seen = sum(pair.template not in apart for pair in task.pairs)
    return apart if n_seen >= _MIN_PAIRS else None


def _parts_of(task: Task, judge_pairs: int, seed: int) -> Parts:
    """Split a task by pairs and prompts."""
    count = len(task.pairs)
    judged = min(judge_pairs, count // 4)
    groups = linked(task.pairs)
    if len(groups) == count and any(pair.template is not None for pair in task.pairs):
        return _balanced(task, judged, seed)
    if len(groups) == count:
        others, held_out = task.split(seed, 0.75)
        return Parts(*others.split(seed + 1, 1 - judged / len(others.pairs)), held_out)
    sizes = (count - judged - count // 4, judged, count // 4)
    parts = _assigned(groups, sizes, Random(f"parts {seed}"))
    if not all(parts):
        raise InputError(
            f"too many of the {count} pairs of task {task.name} share prompts to hold some out: "
            "give more pairs of prompts of their own"
        )
    place = {pair: number for number, pair in enumerate(task.pairs)}
    return Parts(*(task.take(sorted(part, key=place.__getitem__)) for part in parts))


def _balanced(task: Task, judged: int, seed: int) -> Parts:
    """Split a task whose pairs share no prompt so that each part has about the same templates.

    A circuit can be twice as good on one template as on another, so that parts with other shares
    of the templates would have other losses.

    Args:
        task: with templates.
        judged: number of judging pairs.
        seed: of the order of the pairs of each template.
    """
    by_template: dict[str | None, list[int]] = {}
    for number, pair in enumerate(task.pairs):
        by_template.setdefault(pair.template, []).append(number)
    rank: dict[int, float] = {}
    for template in sorted(by_template, key=str):
        numbers = by_template[template]
        Random(f"balanced {seed} {template}").shuffle(numbers)
        rank |= {number: (i + 0.5) / len(numbers) for i, number in enumerate(numbers)}
    order = sorted(rank, key=lambda number: (rank[number], number))
    n_held_out = len(order) // 4
    cuts = (order[n_held_out + judged :], order[n_held_out : n_held_out + judged])
    parts = (*cuts, order[:n_held_out])
    return Parts(*(task.take([task.pairs[number] for number in sorted(part)]) for part in parts))


def linked(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return the pairs in groups such that pairs of different groups share no prompt."""
    parents: dict[str, str] = {}

    def root(prompt: str) -> str:
        while parents.setdefault(prompt, prompt) != prompt:
            parents[prompt] = parents[parents[prompt]]
            prompt = parents[prompt]
        return prompt

    for pair in pairs:
        first, second = map(root, pair.prompts)
        parents[first] = second
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(root(pair.prompts[0]), []).append(pair)
    return list(groups.values())


def _assigned(
    groups: list[list[Pair]], sizes: Sequence[int], generator: Random
) -> list[list[Pair]]:
    """Assign groups, largest first, to the part with most pairs missing; cut a too large one."""
    parts: list[list[Pair]] = [[] for _ in sizes]
    generator.shuffle(groups)
    groups.sort(key=len, reverse=True)
    if len(groups) < len(sizes) or len(groups[0]) > max(sizes):
        for part, piece in zip(parts, _cut(groups.pop(0), sizes, generator), strict=True):
            part.extend(piece)
    for group in groups:
        n_missing = [size - len(part) for size, part in zip(sizes, parts, strict=True)]
        parts[n_missing.index(max(n_missing))].extend(group)
    return parts


def _cut(group: list[Pair], sizes: Sequence[int], generator: Random) -> list[list[Pair]]:
    """Assign each prompt to a part; return per part the pairs with both prompts in it.

    A part with a share p of the prompts keeps about p squared of the pairs.
    """
    prompts = sorted({prompt for pair in group for prompt in pair.prompts})
    generator.shuffle(prompts)
    shares = [size**0.5 for size in sizes]
    ends = [round(len(prompts) * sum(shares[: i + 1]) / sum(shares)) for i in range(len(sizes))]
    owner = {prompt: sum(i >= end for end in ends) for i, prompt in enumerate(prompts)}
    owners = [{owner[prompt] for prompt in pair.prompts} for pair in group]
    return [
        [pair for pair, own in zip(group, owners, strict=True) if own == {number}]
        for number in range(len(sizes))
    ]


def fingerprint(task: Task) -> str:
    """Return SHA-256 over a task's pairs, as hex."""
    pairs = [[pair.prompts, pair.answers] for pair in task.pairs]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def used_fingerprint(parts: Parts) -> str:
    """Return SHA-256 over the pairs that a search uses, which train or judge, as hex."""
    return fingerprint(parts.train.take([*parts.train.pairs, *parts.judge.pairs]))


def split_fingerprint(task: Task, judge_pairs: int, seed: int) -> str:
    """Return `used_fingerprint` of `parts_of`; empty if the task cannot be split."""
    with suppress(InputError):
        return used_fingerprint(parts_of(task, judge_pairs, seed))
    return ""
