"""False-positive and true-positive rates of the verdict's bars, from records of `evidence`."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scipy.stats import beta

from benchmarks.blind_test.evidence import Record

MOST = 0.025
"""Highest false-positive rate that is allowed."""
SHARES = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""Bars that are compared: place between target (0) and chance (1)."""


class Rate(NamedTuple):
    """How many circuits pass."""

    passed: int
    n: int

    @property
    def highest(self) -> float:
        """Upper end of the one-sided 95% interval of the rate (Clopper-Pearson)."""
        if self.passed == self.n:
            return 1.0
        return float(beta.ppf(0.95, self.passed + 1, self.n - self.passed))

    @property
    def lowest(self) -> float:
        """Lower end of the one-sided 95% interval of the rate (Clopper-Pearson)."""
        if not self.passed:
            return 0.0
        return float(beta.ppf(0.05, self.passed, self.n - self.passed + 1))

    def __str__(self) -> str:
        return f"{self.passed} of {self.n}"


def rate(met: Iterable[bool]) -> Rate:
    """Return how many are met."""
    all_met = list(met)
    return Rate(sum(all_met), len(all_met))


def is_real(record: Record) -> bool:
    """Return whether the verdict's bars call a circuit sufficient and specific."""
    return record["levels"]["sufficient"] is True and record["levels"]["specific"] is True


def is_real_at(record: Record, share: float) -> bool:
    """Return the same for another bar between target and chance.

    The bar of the held-out loss against the target stays.
    """
    target, chance = record["target_loss"], record["chance"]
    limit, criteria = target + share * (chance - target), record["criteria"]
    losses = [
        criteria[name]["value"]
        for name in ("held_out", "held_out_templates", "model")
        if name in criteria
    ]
    allowed = criteria["held_out"]["value"] - 2 * record["circuit_error"] <= target
    necessary = criteria["without_circuit"]["value"] >= limit
    fixed = allowed and necessary and "empty" not in criteria
    return fixed and all(loss <= max(limit, target) for loss in losses)


def is_robust_at(record: Record, share: float) -> bool:
    """Return whether a circuit holds under resampling and interchange, for another bar."""
    target, chance, criteria = record["target_loss"], record["chance"], record["criteria"]
    values = [criteria[name].get("value") for name in ("resampled", "interchange")]
    if None in values:
        return False
    limit = target + share * (chance - target)
    return all(value <= limit for value in values) and record["other"] >= chance


def loosest_share(nulls: Sequence[Record]) -> float | None:
    """Return the loosest bar that at most `MOST` of some null circuits pass; None without one."""
    passing = [
        share
        for share in SHARES
        if rate(is_real_at(record, share) for record in nulls).passed <= MOST * len(nulls)
    ]
    return max(passing, default=None)
