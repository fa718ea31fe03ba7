"""A measured figure: its name, unit, median and spread over the rounds, and its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Better = Literal["lower", "higher"]
RATIO = "ratio"


@dataclass(frozen=True)
class Figure:
    """One measured number, or the reason why it could not be measured."""

    name: str
    unit: str = RATIO
    """`ratio`, or a unit such as `s`; only ratios are compared between machines."""
    median: float | None = None
    low: float | None = None
    """Lowest of the rounds."""
    high: float | None = None
    """Highest of the rounds."""
    better: Better = "lower"
    target: float | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        values: Sequence[float],
        *,
        unit: str = RATIO,
        better: Better = "lower",
        target: float | None = None,
        note: str = "",
    ) -> Figure:
        """Return the figure of the values of all rounds."""
        low, high = min(values), max(values)
        return cls(name, unit, median(values), low, high, better, target, note)

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the target; None without one of them."""
        if self.target is None or self.median is None:
            return None
        return self.median <= self.target if self.better == "lower" else self.median >= self.target

    def line(self) -> str:
        """Return the figure as a line of the table."""
        if self.median is None or self.low is None or self.high is None:
            value = f"not available: {self.note}"
        else:
            spread = f"({number(self.low)} to {number(self.high)})"
            value = f"{number(self.median):>8} {self.unit:7} {spread:18}"
        return f"{self.name:58} {value} {self._target()}".rstrip()

    def _target(self) -> str:
        note = f" [{self.note}]" if self.note and self.median is not None else ""
        if self.target is None:
            return note.lstrip()
        bound = "at most" if self.better == "lower" else "at least"
        result = {True: ": met", False: ": MISSED", None: ""}[self.is_met]
        return f"target {bound} {self.target:g}{result}{note}"


def not_available(
    name: str, reason: str, target: float | None = None, better: Better = "lower"
) -> Figure:
    """Return a figure that cannot be measured here."""
    return Figure(name, better=better, target=target, note=reason)


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.{2 if abs(value) >= 1 else 3}f}" if abs(value) < 10 else f"{value:.1f}"
