"""Figures of an earlier version, measured by this package on a named processor.

They are in `stored.json`, in the format of `python -m benchmarks --json`. Seconds of another
processor mean nothing here, so no ratio is given on another one.
"""

from collections.abc import Sequence
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
    """Return this version's numbers over the stored ones."""
    return [ratio(figure, f"{figure.name} / {VERSION}", target, False) for figure in now]


def times_as_fast(now: Sequence[Figure], target: float) -> list[Figure]:
    """Return how many times faster this version is: of seconds the inverse of the ratio."""
    return [
        ratio(figure, f"{figure.name}, times as fast as {VERSION}", target, True) for figure in now
    ]


def ratio(figure: Figure, name: str, target: float, speed: bool) -> Figure:
    """Return a figure over its stored value, as a speed (higher is better) or as it is."""
    before = figures().figures.get(figure.name)
    better: Better = "higher" if speed else figure.better
    if before is None or before.median is None:
        return not_available(name, f"no figure of {VERSION} is stored", target, better)
    other = differences(this_machine(), figures())
    if other:
        where = f"{VERSION} was measured elsewhere ({'; '.join(other)})"
        return not_available(name, where, target, better)
    assert figure.median is not None
    values = [getattr(figure, part) / before.median for part in ("low", "median", "high")]
    if speed and figure.better == "lower":
        values = [1 / value for value in values]
    note = "" if figure.note == before.note else f"stored for another model, {before.note}"
    return Figure.of(name, values, better=better, target=target, note=note)
