"""Figures of an earlier version, measured by this package on a named processor.

They are in `stored.json`, in the format of `python -m benchmarks --json`. Seconds of another
processor mean nothing here, so no ratio is given on another one.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.comparison import Saved, differences, read
from benchmarks.figure import Better, Figure, not_available
from benchmarks.machine import this_machine

FILE = Path(__file__).parent / "stored.json"
VERSION = "d101660"
"""Commit of the stored figures."""


@cache
def figures() -> Saved:
    """Return the stored figures."""
    return read(FILE)


def now_over_stored(now: Sequence[Figure], target: float) -> list[Figure]:
    """Return seconds of this version over those of the stored one, lower is better."""
    return [ratio(figure, f"{figure.name} / {VERSION}", target, "lower") for figure in now]


def stored_over_now(now: Sequence[Figure], target: float) -> list[Figure]:
    """Return how many times faster this version is than the stored one."""
    return [ratio(figure, f"{VERSION} / {figure.name}", target, "higher") for figure in now]


def ratio(figure: Figure, name: str, target: float, better: Better) -> Figure:
    """Return a figure over its stored value, or the inverse if `better` is `higher`."""
    before = figures().figures.get(figure.name)
    if before is None or before.median is None:
        return not_available(name, f"no figure of {VERSION} is stored")
    other = differences(this_machine(), figures())
    if other:
        return not_available(name, f"{VERSION} was measured elsewhere ({'; '.join(other)})")
    assert figure.median is not None
    values = [getattr(figure, part) / before.median for part in ("low", "median", "high")]
    if better == "higher":
        values = [1 / value for value in values]
    ratios = Figure.of(name, values, target=target)
    return replace(ratios, better=better)
