"""Saving of figures, and comparison with those of an earlier run."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figure import RATIO, Figure, number
from benchmarks.machine import Machine
from wirework.errors import InputError

MARGIN = 0.03
"""Share of the median by which both spreads are widened: three rounds miss some of it."""

SAME = ("processor", "instructions", "cores", "threads")
"""Facts of the machine without which milliseconds mean nothing beside each other."""


class Saved(NamedTuple):
    """The content of a file of figures."""

    machine: dict[str, Any]
    precision: str
    figures: dict[str, Figure]


class Change(NamedTuple):
    """A figure beside its earlier value."""

    figure: Figure
    before: Figure
    verdict: str
    """`slower`, `faster` or `same`; for memory, `slower` is larger."""

    def line(self) -> str:
        """Return the change as a line of the table."""
        values = [one.median or 0.0 for one in (self.before, self.figure)]
        then, now = map(number, values)
        return f"{self.verdict:7} {self.figure.name:58} {then} -> {now} {self.figure.unit}"


def save(path: Path, machine: Machine, precision: str, figures: Sequence[Figure]) -> None:
    """Write all figures with the machine.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        "machine": machine.as_dict(),
        "precision": precision,
        "figures": [asdict(figure) for figure in figures],
    }
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path) -> Saved:
    """Return the content of a file that `save` wrote.

    Raises:
        InputError: the file cannot be read, or is not one of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(**one) for one in content["figures"]]
        named = {figure.name: figure for figure in figures if _is_number(figure)}
        return Saved(dict(content["machine"]), str(content["precision"]), named)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a file of figures: make one with python -m benchmarks --json FILE"
        ) from error


def _is_number(figure: Figure) -> bool:
    """Return whether a figure was measured; raise a TypeError if its numbers are none."""
    numbers = (figure.median, figure.low, figure.high)
    if numbers == (None, None, None):
        return False
    if not all(isinstance(value, int | float) for value in numbers):
        raise TypeError(f"{figure.name} has no numbers")
    return True


def differences(machine: Machine, saved: Saved) -> list[str]:
    """Return the facts in which the machines differ, as `name: then -> now`."""
    now = machine.as_dict()
    return [
        f"{name}: {saved.machine.get(name)} -> {now[name]}"
        for name in SAME
        if saved.machine.get(name) != now[name]
    ]


def changes(figures: Sequence[Figure], saved: Saved, ratios_only: bool) -> list[Change]:
    """Return each figure that both runs have beside its earlier value."""
    return [
        Change(figure, before, verdict(figure, before))
        for figure in figures
        if figure.median is not None
        and (before := saved.figures.get(figure.name)) is not None
        and before.unit == figure.unit
        and (figure.unit == RATIO or not ratios_only)
    ]


def verdict(figure: Figure, before: Figure) -> str:
    """Return `slower` or `faster` if the spreads of the two runs do not meet, else `same`."""
    (low, high), (low_before, high_before) = map(_widened, (figure, before))
    if low <= high_before and low_before <= high:
        return "same"
    is_lower = high < low_before
    return "faster" if is_lower == (figure.better == "lower") else "slower"


def _widened(figure: Figure) -> tuple[float, float]:
    assert figure.median is not None
    assert figure.low is not None
    assert figure.high is not None
    room = MARGIN * abs(figure.median)
    return figure.low - room, figure.high + room
