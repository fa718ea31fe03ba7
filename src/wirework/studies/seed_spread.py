"""How far apart two means must be before the spread over seeds does not explain it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import variance


@dataclass(frozen=True)
class SeedSpread:
    """Spread of a single run over seeds."""

    deviation: float
    """Standard deviation."""
    degrees: int
    """Degrees of freedom of its estimate."""

    def least_difference(self, level: float, n_first: int = 1, n_second: int = 1) -> float:
        """Return the difference of two means that chance exceeds in a share `level` of cases.

        A two-sided t test of equal variances.

        Args:
            level: share of cases, such as 0.05.
            n_first: runs of the first mean.
            n_second: runs of the second mean.
        """
        from scipy.stats import t  # here: scipy.stats takes half a second to import

        quantile = float(t.ppf(1 - level / 2, self.degrees))
        return quantile * self.deviation * math.sqrt(1 / n_first + 1 / n_second)


def pooled_spread(groups: Iterable[Sequence[float]]) -> SeedSpread | None:
    """Return the spread over seeds, pooled over models.

    Args:
        groups: for each model the values of its seeds.

    Returns:
        None if no model has two seeds.
    """
    groups = [group for group in groups if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return None
    squares = sum(variance(group) * (len(group) - 1) for group in groups)
    return SeedSpread(math.sqrt(squares / degrees), degrees)
