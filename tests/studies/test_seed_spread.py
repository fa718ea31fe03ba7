import math
from random import Random

import pytest

from wirework.studies.seed_spread import SeedSpread, spread_of, t_quantile, typical_spread


def test_the_spread_of_one_model_by_hand() -> None:
    assert spread_of([1.0, 2.0, 3.0]) == SeedSpread(1.0, 2)
    assert spread_of([1.0]) is None
    assert spread_of([]) is None


def test_the_typical_spread_is_that_of_most_models() -> None:
    rng = Random(0)
    quiet = [[rng.gauss(3, 0.01), rng.gauss(3, 0.01)] for _ in range(400)]
    found, with_unstable = typical_spread(quiet), typical_spread([*quiet, [3.0, 6.0], [7.0], []])
    assert found is not None
    assert with_unstable is not None
    assert (found.degrees, with_unstable.degrees) == (400, 401)
    assert found.deviation == pytest.approx(0.01, rel=0.1)
    assert with_unstable.deviation == pytest.approx(found.deviation, rel=0.02)


def test_single_runs_have_no_typical_spread() -> None:
    assert typical_spread([[1.0], [2.0], []]) is None


def test_quantiles_by_a_table_of_t() -> None:
    assert t_quantile(0.05, 2) == pytest.approx(4.302653)
    assert t_quantile(0.01, 3) == pytest.approx(5.840909)


def test_the_least_difference_by_a_table_of_t() -> None:
    spread = SeedSpread(2.0, 3)
    assert spread.least_difference(0.05, [1.0], [5.0]) == pytest.approx(3.182446 * math.sqrt(4 + 4))
    # The first model's seeds have variance 18, more than 4; the second's 0.5.
    found = spread.least_difference(0.01, [1.0, 7.0], [4.0, 5.0])
    assert found == pytest.approx(5.840909 * math.sqrt(18 / 2 + 4 / 2))
