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
    hard = k_winners(scores, k)
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
    torch.testing.assert_close(k_winners(scores, k, mask="soft"), soft)


def test_all_units_win_where_k_is_all_of_them() -> None:
    assert torch.equal(k_winners(torch.randn(3, 5), 5), torch.ones(3, 5))
    for k in (0, 6):
        with pytest.raises(ValueError, match=f"between 1 and the 5 units, got {k}"):
            k_winners(torch.randn(3, 5), k)


def test_ties_have_exactly_k_winners() -> None:
    scores = torch.zeros(2, 6, requires_grad=True)
    mask = k_winners(scores, 2)
    assert mask.sum(-1).tolist() == [2, 2]
    mask.sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
