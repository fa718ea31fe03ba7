import math

import pytest

from wirework.studies.seed_spread import SeedSpread, pooled_spread


def test_the_pooled_spread_by_hand() -> None:
    # Squared deviations: 2 about the first mean, 0.5 about the second; 2 + 1 degrees of freedom.
    spread = pooled_spread([[1.0, 2.0, 3.0], [4.0, 5.0], [7.0], []])
    assert spread == SeedSpread(pytest.approx(math.sqrt(2.5 / 3)), 3)


def test_single_runs_have_no_spread() -> None:
    assert pooled_spread([[1.0], [2.0], []]) is None


def test_the_least_difference_by_a_table_of_t() -> None:
    spread = SeedSpread(2.0, 3)
    assert spread.least_difference(0.05) == pytest.approx(3.182446 * 2 * math.sqrt(2))
    assert spread.least_difference(0.01, 2, 4) == pytest.approx(5.840909 * 2 * math.sqrt(0.75))
