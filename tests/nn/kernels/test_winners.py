"""Against the formula, differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from wirework.nn.kernels.winners import k_winners


def soft_by_formula(x: Tensor, k: int, temperature: float) -> Tensor:
    top = x.topk(k + 1, -1).values
    inside, outside = top[..., k - 1 : k], top[..., k:]
    gamma, spread = (inside + outside) / 2, temperature * (inside - outside)
    s = ((x - gamma) / (spread + 1e-12)).sigmoid()
    return k * s / s.sum(-1, keepdim=True)


@pytest.mark.parametrize("k", [1, 2, 8, 30, 31])
def test_a_hard_mask_has_k_ones_and_the_gradient_of_the_soft_one(k: int) -> None:
    torch.manual_seed(k)
    scores = torch.randn(4, 7, 32, dtype=torch.float64, requires_grad=True)
    hard = k_winners(scores, k)
    assert torch.equal(hard.sum(-1), torch.full((4, 7), float(k)).double())
    assert set(hard.unique().tolist()) <= {0.0, 1.0}
    lowest_in = scores.masked_fill(hard == 0, torch.inf).amin(-1)
    highest_out = scores.masked_fill(hard == 1, -torch.inf).amax(-1)
    assert bool((lowest_in > highest_out).all())
    grad = torch.randn_like(hard)
    (found,) = torch.autograd.grad(hard, scores, grad)
    soft = soft_by_formula(scores, k, 0.1)
    (wanted,) = torch.autograd.grad(soft, scores, grad)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(k_winners(scores, k, mask="soft"), soft)


def test_k_must_leave_some_out() -> None:
    for k in (0, 5, 6):
        with pytest.raises(ValueError, match=f"at least 1 and below the 5 units, got {k}"):
            k_winners(torch.randn(3, 5), k)


def winners(scores: Tensor, k: int) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in k_winners(scores, k)]


@pytest.mark.parametrize("width", [40, 1500])
def test_of_equal_scores_those_of_lower_index_win(width: int) -> None:
    scores = torch.zeros(3, width)
    scores[0, 7] = 1.0
    scores[1, 3:5] = -1.0
    scores[2] = torch.arange(width).neg() // 2
    assert winners(scores, 3) == [[0, 1, 7], [0, 1, 2], [0, 1, 2]]


def test_epsilon_softens_the_border() -> None:
    scores = torch.randn(5, 9, dtype=torch.float64)
    top = scores.topk(4, -1).values
    gamma, spread = top[:, 2:].mean(-1, keepdim=True), 0.1 * (top[:, 2:3] - top[:, 3:]) + 2.0
    s = ((scores - gamma) / spread).sigmoid()
    found = k_winners(scores, 3, epsilon=2.0, mask="soft")
    torch.testing.assert_close(found, 3 * s / s.sum(-1, keepdim=True))


def test_nan_infinities_and_ties_leave_k_winners_and_other_rows_alone() -> None:
    scores = torch.randn(64, 16)
    wanted = winners(scores, 3)
    scores[3, 2:9] = torch.nan
    scores[5, [2, 9, 11, 15]] = 9.0
    scores[6, 4:8] = torch.inf
    scores[7] = -torch.inf
    found = winners(scores, 3)
    odd = {3: [2, 3, 4], 5: [2, 9, 11], 6: [4, 5, 6], 7: [0, 1, 2]}
    assert found == [odd.get(row, wanted[row]) for row in range(64)]


def test_the_gradient_of_ties_is_finite() -> None:
    scores = torch.zeros(2, 6, requires_grad=True)
    k_winners(scores, 2).sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())


def test_scores_of_few_bits() -> None:
    scores = torch.tensor([[0.5, 3.0, 1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    mask = k_winners(scores, 2)
    assert mask.tolist() == [[0.0, 1.0, 0.0, 1.0]]
    mask.sum().backward()
    assert scores.grad is not None


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    assert k_winners(torch.zeros(shape), 2).shape == shape
