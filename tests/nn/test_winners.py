"""Against the formula, differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from wirework.nn.winners import k_winners


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
    hard, indices = k_winners(scores, k)
    assert torch.equal(torch.zeros_like(hard).scatter(-1, indices, 1.0), hard)
    assert bool((indices.diff(dim=-1) > 0).all())
    assert torch.equal(hard.sum(-1), torch.full((4, 7), float(k)).double())
    assert set(hard.unique().tolist()) <= {0.0, 1.0}
    assert bool((scores.masked_fill(hard == 0, torch.inf).amin(-1) > 0).any()) or k > 16
    lowest_in = scores.masked_fill(hard == 0, torch.inf).amin(-1)
    highest_out = scores.masked_fill(hard == 1, -torch.inf).amax(-1)
    assert bool((lowest_in >= highest_out).all())
    grad = torch.randn_like(hard)
    (found,) = torch.autograd.grad(hard, scores, grad)
    soft = soft_by_formula(scores, k, 0.1)
    (wanted,) = torch.autograd.grad(soft, scores, grad)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(k_winners(scores, k, mask="soft").mask, soft)


def test_k_must_leave_some_out() -> None:
    for k in (0, 5, 6):
        with pytest.raises(ValueError, match=f"at least 1 and below the 5 units, got {k}"):
            k_winners(torch.randn(3, 5), k)


@pytest.mark.parametrize("width", [40, 1500])
def test_of_equal_scores_those_of_lower_index_win(width: int) -> None:
    scores = torch.zeros(2, width)
    scores[0, 7] = 1.0
    scores[1, 3:5] = -1.0
    if width > 1024:  # topk promises no order among equals
        scores -= torch.arange(width) * 1e-3
    assert k_winners(scores, 3).indices.tolist() == [[0, 1, 7], [0, 1, 2]]


def test_epsilon_softens_the_border() -> None:
    scores = torch.randn(5, 9, dtype=torch.float64)
    top = scores.topk(4, -1).values
    gamma, spread = top[:, 2:].mean(-1, keepdim=True), 0.1 * (top[:, 2:3] - top[:, 3:]) + 2.0
    s = ((scores - gamma) / spread).sigmoid()
    found = k_winners(scores, 3, epsilon=2.0, mask="soft").mask
    torch.testing.assert_close(found, 3 * s / s.sum(-1, keepdim=True))


def test_nan_is_passed_on_and_does_not_end_in_a_shape_error() -> None:
    scores = torch.randn(4, 9)
    scores[1, 2] = torch.nan
    assert k_winners(scores, 3).mask.sum().item() == 12


def test_a_row_of_nan_and_one_of_ties_do_not_make_up_for_each_other() -> None:
    scores = torch.randn(64, 16)
    wanted = scores.argmax(-1)
    scores[3] = torch.nan
    scores[5, [2, 9]] = 9.0
    found = k_winners(scores, 1).indices
    assert found is not None
    rest = [row for row in range(64) if row not in (3, 5)]
    assert torch.equal(found[rest, 0], wanted[rest])
    assert found[5, 0] == 2


def test_ties_have_exactly_k_winners() -> None:
    scores = torch.zeros(2, 6, requires_grad=True)
    mask = k_winners(scores, 2).mask
    assert mask.sum(-1).tolist() == [2, 2]
    mask.sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
