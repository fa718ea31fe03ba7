"""k winners take all: which k units of a token stay on, with a gradient as if softly chosen.

Shapes: U units of one layer and kind. Source: Ferrao et al. 2025.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-12


def k_winners(
    scores: Tensor, k: int, *, temperature: float = 0.1, mask: Literal["hard", "soft"] = "hard"
) -> Tensor:
    """Return a mask of the k highest scores of each row.

    `soft = k s / sum(s)`, `s = sigmoid((x - gamma) / (T + eps))`, gamma the midpoint of the k-th
    and the (k+1)-th score and T `temperature` times their difference. A hard mask is 1 at the k
    highest scores (exactly k ones, ties to the lower index) and has the gradient of the soft one.

    Args:
        scores: (..., U).
        k: 1 <= k <= U; with k = U nothing is chosen: all ones, and no gradient.
        temperature: of the soft mask; lower is steeper.
        mask: `soft` returns the soft mask itself, which leaks: only to reproduce early models.

    Returns:
        (..., U), in the dtype of the scores.

    Raises:
        ValueError: k out of range.
    """
    if not 1 <= k <= scores.shape[-1]:
        raise ValueError(f"k must be between 1 and the {scores.shape[-1]} units, got {k}")
    if k == scores.shape[-1]:
        return torch.ones_like(scores)
    found: Tensor = _KWinners.apply(scores, k, temperature, mask == "hard")  # type: ignore[no-untyped-call]
    return found


class _KWinners(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, temperature: float, hard: bool) -> Tensor:
        top = scores.topk(k + 1, -1)
        inside, outside = top.values[..., k - 1 : k], top.values[..., k:]
        spread = temperature * (inside - outside) + _EPS
        ctx.k, ctx.temperature = k, temperature
        ctx.save_for_backward(scores, inside, outside, spread, top.indices[..., k - 1 :])
        if hard:
            return torch.zeros_like(scores).scatter_(-1, top.indices[..., :k], 1.0)
        soft = ((scores - (inside + outside) / 2) / spread).sigmoid_()
        return soft.mul_(k / soft.sum(-1, keepdim=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scores, inside, outside, spread, border = ctx.saved_tensors
        along = (scores - (inside + outside) / 2) / spread
        soft = along.sigmoid()
        total = soft.sum(-1, keepdim=True)
        mean = (grads[0] * soft).sum(-1, keepdim=True) / total
        to_along = (grads[0] - mean) * soft * (1 - soft) * (ctx.k / total)
        to_scores = to_along / spread
        # gamma and T are themselves of the two scores at the border.
        to_gamma = -to_scores.sum(-1, keepdim=True)
        to_spread = -(to_scores * along).sum(-1, keepdim=True) * ctx.temperature
        ends = torch.cat([to_gamma / 2 + to_spread, to_gamma / 2 - to_spread], -1)
        return to_scores.scatter_add_(-1, border, ends), None, None, None
