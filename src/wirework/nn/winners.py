"""k winners take all: which k units of a token stay on, with a gradient as if softly chosen.

Shapes: U units of one layer and kind. Source: Ferrao et al. 2025.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.pieces import each_piece

_PIECE = 1 << 17  # entries whose gradient is made at once: what the passes hand on stays in cache
_WIDEST = 1024  # rows up to so many units are partitioned by numpy, several times faster than topk


class Winners(NamedTuple):
    """Which units won."""

    mask: Tensor
    """(..., U), in the dtype of the scores."""
    indices: Tensor | None
    """(..., k) int64, rising; None for a soft mask."""


def k_winners(
    scores: Tensor,
    k: int,
    *,
    temperature: float = 0.1,
    epsilon: float = 1e-12,
    mask: Literal["hard", "soft"] = "hard",
) -> Winners:
    """Choose the k highest scores of each row.

    `soft = k s / sum(s)`, `s = sigmoid((x - gamma) / (T + epsilon))`, gamma the midpoint of the
    k-th and the (k+1)-th score and T `temperature` times their difference. A hard mask is 1 at the
    k highest scores (exactly k ones; of equal ones, on a CPU and among at most 1,024, those of
    lower index) and has the gradient of the soft one.

    Args:
        scores: (..., U).
        k: 1 <= k < U.
        temperature: of the soft mask; lower is steeper.
        epsilon: keeps the slope finite where two scores are equal.
        mask: `soft` gives the soft mask itself, which leaks: only to reproduce early models.

    Raises:
        ValueError: k out of range.
    """
    width = scores.shape[-1]
    if not 1 <= k < width:
        raise ValueError(f"k must be at least 1 and below the {width} units, got {k}")
    hard = mask == "hard"
    found, indices = _KWinners.apply(scores, k, temperature, epsilon, hard)  # type: ignore[no-untyped-call]
    return Winners(found, indices if hard else None)


class _KWinners(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, k: int, temperature: float, epsilon: float, hard: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.shape = scores.shape
        scores = scores.reshape(-1, scores.shape[-1])
        indices, border = _choose(scores, k)
        ctx.k, ctx.temperature, ctx.epsilon = k, temperature, epsilon
        ctx.save_for_backward(scores, border)
        if hard:
            found = torch.zeros_like(scores).scatter_(-1, indices, 1.0)
        else:
            found = _along(scores, border, temperature, epsilon)[0].sigmoid_()
            found.mul_(k / found.sum(-1, keepdim=True))
        indices = indices.view(*ctx.shape[:-1], k)
        ctx.mark_non_differentiable(indices)
        return found.view(ctx.shape), indices

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
        for grad, x, ends, out in zip(*parts, strict=True):
            along, spread = _along(x, ends, ctx.temperature, ctx.epsilon)
            soft = along.sigmoid()
            total = soft.sum(-1, keepdim=True)
            mean = torch.linalg.vecdot(grad, soft).unsqueeze(-1) / total
            torch.sub(grad, mean, out=out)
            soft.addcmul_(soft, soft, value=-1)  # the slope of the sigmoid
            out.mul_(soft).mul_(ctx.k / (total * spread))
            # gamma and T are themselves of the two scores at the border.
            half = -out.sum(-1, keepdim=True) / 2
            steep = -torch.linalg.vecdot(out, along).unsqueeze(-1) * ctx.temperature
            out.scatter_add_(-1, ends, torch.cat([half + steep, half - steep], -1))
        return to_scores.view(ctx.shape), None, None, None, None


def _along(
    scores: Tensor, border: Tensor, temperature: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return (x - gamma) / (T + epsilon), (N, U), and its divisor, (N, 1)."""
    inside, outside = torch.split(scores.gather(-1, border), 1, -1)
    spread = temperature * (inside - outside) + epsilon
    return (scores - (inside + outside) / 2).div_(spread), spread


def _choose(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k winners of each row of (N, U), rising, and the k-th and (k+1)-th, (N, 2)."""
    if scores.device.type == "cpu" and scores.shape[-1] <= _WIDEST:
        return _partitioned(scores, k)
    order = scores.topk(k + 1, -1).indices
    return order[:, :k].sort(-1).values, order[:, k - 1 : k + 1]


def _partitioned(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what `_choose` does; only rows with equal scores at the border, or NaN, are sorted."""
    values = scores.detach().numpy()
    count, width = values.shape
    indices, border = np.empty((count, k), np.int64), np.empty((count, 2), np.int64)

    def choose(rows: slice) -> None:
        some = values[rows]
        parted = np.partition(some, width - k - 1, axis=-1)
        inside = parted[:, width - k :].min(-1, keepdims=True)
        outside = parted[:, width - k - 1, None]
        wins = some >= inside
        places = np.flatnonzero(wins)
        odd, order = np.empty(0, np.int64), np.empty((0, k + 1), np.int64)
        if not np.array_equal(places // width, np.repeat(np.arange(len(some)), k)):
            odd = np.flatnonzero(wins.sum(-1) != k)
            order = _highest(some[odd], k + 1)
            wins[odd] = False
            wins[odd[:, None], order[:, :k]] = True
            places = np.flatnonzero(wins)
        indices[rows] = won = (places % width).reshape(-1, k)
        least = np.take_along_axis(some, won, -1).argmin(-1)[:, None]
        ends = border[rows]
        ends[:, :1] = np.take_along_axis(won, least, -1)
        ends[:, 1] = (some == outside).argmax(-1)
        ends[odd] = order[:, k - 1 :]

    each_piece(count, width, choose)
    return torch.from_numpy(indices), torch.from_numpy(border)


def _highest(values: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Return the places of the highest of each row, falling, NaN first, of equal ones the first."""
    rising = np.argsort(values[:, ::-1], kind="stable")  # from behind, as it is read backwards
    found: npt.NDArray[np.int64] = values.shape[1] - 1 - rising[:, ::-1][:, :count]
    return found
