"""How far apart two means must be before the spread over seeds does not explain it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, variance


@dataclass(frozen=True)
class SeedSpread:
    """Spread of a single run over seeds."""

    deviation: float
    """Standard deviation."""
    degrees: int
    """Degrees of freedom of its estimate."""

    def least_difference(
        self, level: float, first: Sequence[float], second: Sequence[float]
    ) -> float:
        """Return the difference of two means that chance exceeds in a share `level` of cases.

        Two-sided, with Student's t. A model whose own seeds vary more counts with its own variance.

        Args:
            level: share of cases, such as 0.05.
            first: the runs of one model.
            second: the runs of the other.
        """
        squared = sum(self._variance(runs) / len(runs) for runs in (first, second))
        return t_quantile(level, self.degrees) * math.sqrt(squared)

    def _variance(self, runs: Sequence[float]) -> float:
        return max(self.deviation**2, variance(runs) if len(runs) > 1 else 0.0)


def spread_of(runs: Sequence[float]) -> SeedSpread | None:
    """Return the spread over the seeds of one model; None for a single run."""
    return SeedSpread(math.sqrt(variance(runs)), len(runs) - 1) if len(runs) > 1 else None


def typical_spread(models: Iterable[Sequence[float]]) -> SeedSpread | None:
    """Return the spread over seeds of most models: a few unstable ones hardly change it.

    It is the median over models of the variance, each divided by the median that the variance of as
    many runs has for a standard normal distribution.

    Args:
        models: for each model the values of its seeds.

    Returns:
        None if no model has two seeds.
    """
    from scipy.stats import chi2  # here: scipy.stats takes half a second to import

    repeated = [runs for runs in models if len(runs) > 1]
    if not repeated:
        return None
    all_degrees = [len(runs) - 1 for runs in repeated]
    scaled = [
        variance(runs) * degrees / float(chi2.median(degrees))
        for runs, degrees in zip(repeated, all_degrees, strict=True)
    ]
    return SeedSpread(math.sqrt(median(scaled)), sum(all_degrees))


def t_quantile(level: float, degrees: int) -> float:
    """Return what the absolute value of Student's t exceeds in a share `level` of cases."""
    from scipy.stats import t  # here: scipy.stats takes half a second to import

    return float(t.ppf(1 - level / 2, degrees))
