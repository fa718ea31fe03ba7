"""Which pairs of a task train masks, which judge circuits, and which neither has seen."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wirework.errors import InputError
from wirework.tasks import Task

_LEAST = 4


class Parts(NamedTuple):
    """A task in three parts that share neither a pair nor a prompt."""

    train: Task
    """Half of the pairs or more: what masks are trained on."""
    judge: Task
    """At most a quarter: what circuits are discretised and judged on."""
    held_out: Task
    """A quarter: what only `validate` sees."""


def parts_of(task: Task, judge_pairs: int, seed: int) -> Parts:
    """Part a task, a pure function of its pairs, `judge_pairs` and the seed.

    Where pairs share prompts, each prompt belongs to one part, and pairs whose prompts belong to
    two are left out.

    Raises:
        InputError: fewer than 4 pairs, or so few prompts that a part is left without a pair.
    """
    count = len(task.pairs)
    if count < _LEAST:
        raise InputError(f"task {task.name} has {count} pairs, at least {_LEAST} are needed")
    rest, held_out = task.split(seed, 0.75)
    train, judge = rest.split(seed + 1, 1 - min(judge_pairs, count // 4) / len(rest.pairs))
    parts = Parts(*_apart(task, (train, judge, held_out)))
    if not all(part.pairs for part in parts):
        raise InputError(
            f"the {count} pairs of task {task.name} share their prompts, so that none can be held "
            "out: give more pairs of prompts of their own"
        )
    return parts


def _apart(task: Task, drawn: Sequence[Task]) -> Iterator[Task]:
    """Yield a task for each of those drawn, made of the pairs that have both prompts from it.

    A prompt is from the part of the first pair that has it, so that each part has its share of
    them; where none are shared, the parts stay as they were drawn.
    """
    part_of = {pair: number for number, part in enumerate(drawn) for pair in part.pairs}
    owner: dict[str, int] = {}
    for pair in task.pairs:
        for prompt in pair.prompts:
            owner.setdefault(prompt, part_of[pair])
    for number in range(len(drawn)):
        yield task.take([p for p in task.pairs if {owner[one] for one in p.prompts} == {number}])


def fingerprint(task: Task) -> str:
    """Return SHA-256 over a task's pairs, as hex."""
    pairs = [[pair.prompts, pair.answers] for pair in task.pairs]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
