import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirework.config import OptimizerConfig, WeightSparsityConfig
from wirework.training.schedule import (
    learning_rate,
    nonzero_fraction,
    sharkfin,
    warmup_decay,
)
from wirework.training.weight_sparsity import WeightSparsity

SPARSITY = WeightSparsityConfig(l0_fraction=0.25, anneal_start=0.1, anneal_end=0.5)


def test_warmup_rises_to_the_peak_then_decays_linearly():
    factors = [warmup_decay(step, 10, 0.2) for step in range(10)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[3:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_no_warmup_starts_at_the_peak():
    assert [warmup_decay(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_cosine_falls_slowly_first_and_last():
    # After a warm-up of 2 of 10 steps, (1 + cos(pi i / 8)) / 2 for i = 0, 1, ..., 7.
    factors = [warmup_decay(step, 10, 0.2, "cosine") for step in range(10)]
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2:] == pytest.approx(
        [1.0, 0.96194, 0.85355, 0.69134, 0.5, 0.30866, 0.14645, 0.03806], abs=1e-5
    )
    optimizer = OptimizerConfig(lr=0.1, warmup=0.0, decay="cosine")
    assert learning_rate(1, 4, optimizer) == pytest.approx(0.1 * 0.85355, abs=1e-6)


def test_fraction_anneals_linearly_between_its_two_ends():
    # After step s of 10 the share done is (s + 1) / 10: 0.1, 0.2, 0.3, 0.4, 0.5, ...
    got = [nonzero_fraction(step, 10, SPARSITY) for step in range(10)]
    assert got[:4] == pytest.approx([1.0, 1 - 0.75 / 4, 1 - 0.75 / 2, 1 - 0.75 * 3 / 4])
    assert got[4:] == [0.25] * 6


def test_a_run_may_begin_with_few_weights():
    config = SPARSITY.model_copy(update={"start_fraction": 0.5})
    got = [nonzero_fraction(step, 10, config) for step in range(10)]
    assert got[:4] == pytest.approx([0.5, 0.5 - 0.25 / 4, 0.5 - 0.25 / 2, 0.5 - 0.25 * 3 / 4])
    assert got[4:] == [0.25] * 6


def test_sharkfin_raises_the_rate_by_one_over_the_root_of_the_fraction():
    assert sharkfin(0.25) == 2.0
    assert WeightSparsity(SPARSITY, 10).learning_rate_factor(5) == 2.0
    plain = SPARSITY.model_copy(update={"sharkfin": False})
    assert WeightSparsity(plain, 10).learning_rate_factor(5) == 1.0
    assert learning_rate(5, 10, OptimizerConfig(lr=0.1, warmup=0.0)) == pytest.approx(0.1 * 0.5)


def test_weight_sparsity_is_settled_once_annealing_is_over():
    prior = WeightSparsity(SPARSITY, 10)
    assert [prior.is_settled(step) for step in range(10)] == [False] * 4 + [True] * 6


@given(
    steps=st.integers(1, 300),
    warmup=st.floats(0, 0.99),
    target=st.floats(0.001, 1),
    ends=st.tuples(st.floats(0, 0.98), st.floats(0.01, 1)).filter(lambda pair: pair[0] < pair[1]),
)
def test_for_any_settings_rates_are_usable_and_the_fraction_falls_to_the_target(
    steps, warmup, target, ends
):
    config = WeightSparsityConfig(l0_fraction=target, anneal_start=ends[0], anneal_end=ends[1])
    fractions = [nonzero_fraction(step, steps, config) for step in range(steps)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(fractions))
    assert fractions[-1] == target
    for decay in ("linear", "cosine"):
        assert all(0 < warmup_decay(step, steps, warmup, decay) <= 1 for step in range(steps))
