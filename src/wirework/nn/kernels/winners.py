"""k-winners-take-all (kWTA): a mask of the k highest scores, with the gradient of a soft mask.

The mask is 1 at the k highest scores of a token. Its gradient is that of `k s / sum(s)`, with
`s = sigmoid((x - gamma) / (T + epsilon))`. gamma is the midpoint of the k-th and the (k+1)-th
score, T is `temperature` times their difference. The sigmoid is steep: most units are very close
to 0 or 1.
Shapes: N tokens, U units of one layer and kind.
Source: Ferrao et al. 2025.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.winner_selection import is_supported, select_winners

_PIECE = 1 << 17  # entries of which the gradient is computed at once, so that they stay in cache


def k_winners(
    scores: Tensor,
    k: int,
    *,
    temperature: float = 0.1,
    epsilon: float = 1e-12,
    mask: Literal["hard", "soft"] = "hard",
) -> Tensor:
    """Return the mask of the k highest scores of each row.

    A hard mask is 1 at exactly k scores and has the gradient of the soft mask. On a CPU ties go to
    the lower index.

    Args:
        scores: (..., U).
        k: 1 <= k < U.
        temperature: temperature of the soft mask; lower is steeper.
        epsilon: keeps the slope finite where two scores are equal.
        mask: `soft` returns the soft mask itself, which leaks the next token; use it only to
            reproduce early models.

    Returns:
        (..., U), in the dtype of the scores.

    Raises:
        ValueError: k out of range.

    Source: Ferrao et al. 2025.
    """
    width = scores.shape[-1]
    if not 1 <= k < width:
        raise ValueError(f"k must be at least 1 and below the {width} units, got {k}")
    winners: Tensor = _KWinners.apply(scores, k, temperature, epsilon, mask == "hard")  # type: ignore[no-untyped-call]
    return winners


class _KWinners(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, k: int, temperature: float, epsilon: float, hard: bool
    ) -> Tensor:
        ctx.shape = scores.shape
        scores = scores.reshape(-1, scores.shape[-1])
        winners, border = _choose(scores, k)
        ctx.k, ctx.temperature, ctx.epsilon = k, temperature, epsilon
        ctx.save_for_backward(scores, border)
        if hard:
            mask = torch.zeros_like(scores).scatter_(-1, winners, 1.0)
        else:
            mask = _scaled_scores(scores, border, temperature, epsilon)[0].sigmoid_()
            mask.mul_(k / mask.sum(-1, keepdim=True))
        return mask.view(ctx.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scores, border = ctx.saved_tensors
        to_scores = torch.empty_like(scores)
        rows = max(1, _PIECE // scores.shape[-1])
        parts = (
            torch.split(t, rows)
            for t in (grads[0].reshape(scores.shape), scores, border, to_scores)
        )
        for grad, x, border_indices, out in zip(*parts, strict=True):
            scaled, spread = _scaled_scores(x, border_indices, ctx.temperature, ctx.epsilon)
            soft = scaled.sigmoid()
            total = soft.sum(-1, keepdim=True)
            mean = torch.linalg.vecdot(grad, soft).unsqueeze(-1) / total
            torch.sub(grad, mean, out=out)
            soft.addcmul_(soft, soft, value=-1)  # the slope of the sigmoid
            out.mul_(soft).mul_(ctx.k / (total * spread))
            # gamma and T depend on the two scores at the border.
            half_gradient = -out.sum(-1, keepdim=True) / 2
            width_gradient = -torch.linalg.vecdot(out, scaled).unsqueeze(-1) * ctx.temperature
            out.scatter_add_(
                -1,
                border_indices,
                torch.cat([half_gradient + width_gradient, half_gradient - width_gradient], -1),
            )
        return to_scores.view(ctx.shape), None, None, None, None


def _scaled_scores(
    scores: Tensor, border: Tensor, temperature: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return (x - gamma) / (T + epsilon), (N, U), and its divisor, (N, 1)."""
    inside, outside = torch.split(scores.gather(-1, border), 1, -1)
    spread = temperature * (inside - outside) + epsilon
    return (scores - (inside + outside) / 2).div_(spread), spread


def _choose(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k winners of each row of (N, U), (N, k), and the k-th and (k+1)-th, (N, 2)."""
    if not is_supported(scores):
        order = scores.topk(k + 1, -1).indices
        return order[:, :k], order[:, k - 1 :]
    chosen = select_winners(scores, k)
    return chosen.pattern.units[chosen.is_winner].view(-1, k), chosen.pattern.units[chosen.border]
