import math

import pytest
import torch

from wirework.circuits.validation.checks import (
    equivalence_test,
    independence_test,
    minimality_test,
    pair_logit_diffs,
)
from wirework.circuits.validation.checks.hypothesis_tests import centred_kernel
from wirework.errors import InputError


def test_a_pair_is_one_observation() -> None:
    assert pair_logit_diffs(torch.tensor([1.0, 3.0, -2.0, 2.0])).tolist() == [2.0, 0.0]


def binomial(n: int, chance: float) -> list[float]:
    return [math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(n + 1)]


class TestMinimalityTest:
    @pytest.mark.parametrize("n", [1, 2, 7, 20])
    @pytest.mark.parametrize("q", [0.0, 0.1, 0.9, 1.0])
    def test_p_values_of_minimality_are_lower_tails(self, n: int, q: float) -> None:
        effects, random_effects = [k - 0.5 for k in range(n + 1)], [float(k) for k in range(n)]
        p_values = minimality_test(effects, random_effects, q).p_values
        tails = [math.fsum(binomial(n, q)[: k + 1]) for k in range(n + 1)]
        assert p_values == pytest.approx(tails, abs=1e-12)

    def test_minimality_by_hand(self) -> None:
        found = minimality_test([1.5, 9.0, 0.5, 2.0], [1.0, 2.0, 3.0], q=0.5)
        # Above 1, 3, 0 and 1 of the three: P(Binomial(3, 1/2) <= K).
        assert found.p_values == pytest.approx((4 / 8, 1, 1 / 8, 4 / 8))
        assert found.p_value == pytest.approx(4 / 8)
        assert found.n_random == 3
        assert minimality_test([], [1.0]).p_value == 1
        assert minimality_test([1.0, 2.0], []).p_values == (1.0, 1.0)

    def test_minimality_is_calibrated_at_q(self) -> None:
        generator = torch.Generator().manual_seed(5)
        effects = torch.rand(400, 100, generator=generator)
        # A unit of effect 0.9 is above an even draw from 0 to 1 with chance 0.9, the edge of H0.
        edge = torch.tensor([minimality_test([0.9], row.tolist()).p_value for row in effects])
        for level in (0.05, 0.2, 0.5):
            share = float((edge <= level).double().mean())
            assert level - 0.15 < share < level + 0.05
        assert all(minimality_test([0.6], row.tolist()).p_value < 0.05 for row in effects)
        assert all(minimality_test([0.99], row.tolist()).p_value > 0.05 for row in effects)


class TestEquivalenceTest:
    @pytest.mark.parametrize("n", [1, 2, 7, 20])
    @pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
    def test_p_values_of_equivalence_are_both_tails(self, n: int, eps: float) -> None:
        for wins in range(n + 1):
            scores = torch.tensor([1.0] * wins + [-1.0] * (n - wins))
            chances = enumerate(binomial(n, 0.5 + eps))
            tails = math.fsum(p for k, p in chances if abs(2 * k - n) >= abs(2 * wins - n))
            p_value = equivalence_test(scores, torch.zeros(n), eps).p_value
            assert p_value == pytest.approx(tails, abs=1e-12)

    def test_equivalence_by_hand(self) -> None:
        model = torch.zeros(4)
        all_won = equivalence_test(torch.ones(4), model, eps=0)
        assert all_won.p_value == pytest.approx(2 / 16)
        assert (all_won.share, all_won.n_pairs, all_won.n_ties) == (1.0, 4, 0)
        assert equivalence_test(torch.ones(4), model).p_value == pytest.approx(0.6**4 + 0.4**4)
        assert equivalence_test(-torch.ones(4), model).p_value == pytest.approx(0.6**4 + 0.4**4)
        three = equivalence_test(torch.tensor([1.0, 1, 1, -1]), model, eps=0)
        assert three.p_value == pytest.approx(10 / 16)
        tied = equivalence_test(torch.tensor([1.0, 0, 0, 0]), model, eps=0)
        assert (tied.share, tied.n_pairs, tied.n_ties, tied.p_value) == (1.0, 1, 3, 1.0)
        none = equivalence_test(model, model)
        assert (none.share, none.n_pairs, none.p_value) == (None, 0, 1.0)

    def test_scores_that_differ_by_rounding_tie(self) -> None:
        model = torch.linspace(1, 9, 40)
        noisy = model + 1e-6 * torch.linspace(1, 2, 40)
        found = equivalence_test(noisy, model)
        assert (found.n_pairs, found.n_ties, found.p_value) == (0, 40, 1.0)

    def test_equivalence_is_calibrated_at_the_edge_of_h0(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def p_values(chance: float) -> torch.Tensor:
            wins = (torch.rand(400, 150, generator=generator) < chance).double() - 0.5
            return torch.tensor([equivalence_test(w, torch.zeros(150)).p_value for w in wins])

        edge = p_values(0.6)
        for level in (0.05, 0.2, 0.5):
            assert float((edge <= level).double().mean()) == pytest.approx(level, abs=0.07)
        assert (p_values(0.5) > 0.05).double().mean() > 0.99
        assert (p_values(0.85) < 0.05).all()


class TestIndependenceTest:
    def test_hsic_is_the_trace_of_the_definition(self) -> None:
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(30, generator=generator, dtype=torch.float64)
        y = x.square() + 0.1 * torch.randn(30, generator=generator, dtype=torch.float64)
        kernels = []
        for scores in (x, y):
            pairs = [abs(float(a - b)) for i, a in enumerate(scores) for b in scores[:i]]
            width = sorted(pairs)[(len(pairs) - 1) // 2]
            kernels.append(
                torch.exp(-(torch.cdist(scores[:, None], scores[:, None]) ** 2) / (2 * width**2))
            )
        H = torch.eye(30, dtype=torch.float64) - 1 / 30
        expected = float(torch.trace(kernels[0] @ H @ kernels[1] @ H)) / 29**2
        found = independence_test(x, y, permutations=199)
        assert found.hsic == pytest.approx(expected, rel=1e-6)
        assert found.p_value == pytest.approx(1 / 200)
        assert torch.allclose(centred_kernel(x), H @ kernels[0] @ H, atol=1e-9)

    def test_independence_is_calibrated_and_sees_what_correlation_does_not(self) -> None:
        generator = torch.Generator().manual_seed(3)
        p_values = []
        for seed in range(200):
            x, y = torch.randn(2, 40, generator=generator)
            p_values.append(independence_test(x, y, 99, seed).p_value)
        found = torch.tensor(p_values)
        for level in (0.05, 0.2, 0.5, 0.8):
            assert float((found <= level).double().mean()) == pytest.approx(level, abs=0.09)
        x = torch.randn(80, generator=generator)
        assert independence_test(x, x.square(), 199).p_value == pytest.approx(1 / 200)

    def test_constant_scores_are_independent_of_everything(self) -> None:
        x = torch.randn(20, generator=torch.Generator().manual_seed(4))
        found = independence_test(torch.full((20,), 0.1), x, 99)
        assert found.p_value == 1
        assert found.hsic == pytest.approx(0, abs=1e-12)
        assert independence_test(x, x, 99, seed=1) == independence_test(x, x, 99, seed=1)

    def test_rounding_is_no_signal_and_equal_orders_are_ties(self) -> None:
        x = torch.linspace(-1, 1, 30, dtype=torch.float64)
        assert independence_test(3.7 + 1e-7 * x, x, 99).p_value == 1
        # Of the 35 ways to put three ones in seven places one is the given one.
        two = torch.tensor([0.3, 0.3, 1.7, 0.3, 1.7, 1.7, 0.3])
        found = [independence_test(two, two * scale, 999).p_value for scale in (1.0, 3.3, -0.7)]
        assert found == pytest.approx([1 / 35] * 3, abs=0.015)
        assert found[0] == found[1] == found[2]
        # Four ones against five of nine: no order is closer to independence than this one.
        left = torch.tensor([0.3, 1.7, 0.3, 1.7, 0.3, 1.7, 0.3, 1.7, 0.3])
        right = torch.tensor([0.3, 0.3, 1.7, 1.7, 0.3, 0.3, 1.7, 1.7, 0.3])
        assert independence_test(left, right, 499).p_value == 1


def test_bad_scores_are_one_line() -> None:
    good = torch.zeros(3)
    with pytest.raises(InputError, match="a logit difference is not a finite number"):
        equivalence_test(good, torch.tensor([0.0, torch.nan, 1.0]))
    with pytest.raises(
        InputError, match=r"logit differences of the same pairs, got shapes \(3,\) and \(2,\)"
    ):
        independence_test(good, good[:2])
    with pytest.raises(InputError, match=r"logit differences of the same pairs, got shapes \(0,\)"):
        independence_test(good[:0], good[:0])
    with pytest.raises(InputError, match="eps must lie between 0 and 0"):
        equivalence_test(good, good, eps=0.7)
    with pytest.raises(InputError, match="at least one order, got 0"):
        independence_test(good, good, 0)
    with pytest.raises(InputError, match="an effect is nan"):
        minimality_test([math.nan], [1.0])
    with pytest.raises(InputError, match="q must lie between 0 and 1, got 2"):
        minimality_test([1.0], [1.0], q=2)
