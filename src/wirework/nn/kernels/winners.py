"""k-winners-take-all (kWTA): a mask of the k highest scores, with the gradient of a soft mask.

The mask is 1 at the k highest scores of a token. Its gradient is that of `k s / sum(s)`, with
`s = sigmoid((x - gamma) / (T + epsilon))`. gamma is the midpoint of the k-th and the (k+1)-th
score, T is `temperature` times their difference. The sigmoid is steep: most units are very close
to 0 or 1.
Shapes: N tokens, U units of one layer and kind, S entries that can have a gradient.
Source: Ferrao et al. 2025.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.sparse_pattern import SparsePattern

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


def numpy_supports(x: Tensor) -> bool:
    """Return whether `select_winners` supports scores of this device and dtype."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


class WinnerSelection(NamedTuple):
    """The k winners of each token and the units close behind, which get a gradient."""

    pattern: SparsePattern
    """Winners and units close behind, S in all."""
    is_winner: Tensor
    """(S,) bool, True for the k winners of each token."""
    border: Tensor
    """(N, 2) int64, indices into S of each token's k-th and (k+1)-th score."""


def select_winners(
    scores: Tensor, k: int, temperature: float = 0.0, epsilon: float = 0.0
) -> WinnerSelection:
    """Return the k winners of each token and the units close enough behind to get a gradient.

    A unit is left out if its slope under the sigmoid is lost in rounding next to that of the
    (k+1)-th score.

    Args:
        scores: (N, U) float32 or float64 on a CPU.
        k: 1 <= k < U.
        temperature, epsilon: as in `k_winners`.
    """
    values = scores.detach().numpy()
    count, width = values.shape
    parts_by_start = {}

    def select(rows: slice) -> None:
        parts_by_start[rows.start] = _select_winners(values[rows], k, temperature, epsilon)

    select(slice(0, 0))  # an empty part with the right dtypes, in case there are no rows
    each_piece(count, width, select)
    parts, n_before = [], 0
    for start in sorted(parts_by_start):
        tokens, units, is_winner, border = parts_by_start[start]
        parts.append((tokens + start, units, is_winner, border + n_before))
        n_before += len(units)
    joined = [torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)]
    return WinnerSelection(
        SparsePattern(joined[0], joined[1], (count, width)), joined[2], joined[3]
    )


_Ints = npt.NDArray[np.int64]


def _select_winners(
    scores: npt.NDArray[Any], k: int, temperature: float, epsilon: float
) -> tuple[_Ints, _Ints, npt.NDArray[np.bool_], _Ints]:
    """Return tokens, units and is_winner, (S,) each, and the border, (N, 2), of some rows."""
    inside, outside = _border(scores, k)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = inside - outside
        # Distance from the border, where slopes are largest; at low temperature all are small.
        reach = -1.2 * np.log(np.finfo(scores.dtype).eps)
        lowest = outside - reach * (temperature * gap + epsilon)
    irregular = np.flatnonzero(~((gap > 0) & (gap < np.inf)))
    if len(irregular):  # ties, infinities, NaN: use ranks, and keep all units
        scores = scores.copy()
        scores[irregular] = _ranks(scores[irregular])
        inside, outside = _border(scores, k)
        lowest[irregular] = 0
    width = scores.shape[1]
    flat = np.flatnonzero(scores >= lowest)
    tokens = flat // width
    values = scores.reshape(-1)[flat]
    border_places = [_first(tokens, values == end[tokens, 0]) for end in (inside, outside)]
    return tokens, flat - tokens * width, values >= inside[tokens, 0], np.stack(border_places, 1)


def _border(scores: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the k-th and the (k+1)-th highest score of each row, (N, 1) each."""
    first = scores.shape[1] - k
    parted = np.partition(scores, first - 1, axis=-1)
    return parted[:, first:].min(-1, keepdims=True), parted[:, first - 1 : first]


def _ranks(scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return ranks within a row, (N, U), from 0; ties: later entries are lower; NaN is highest."""
    rising = np.argsort(scores[:, ::-1], axis=-1, kind="stable")
    return np.argsort(rising, axis=-1)[:, ::-1]


def _first(tokens: _Ints, hits: npt.NDArray[np.bool_]) -> _Ints:
    """Return the index of each token's first hit; every token has one."""
    hit_indices = np.flatnonzero(hits)
    return hit_indices[np.unique(tokens[hit_indices], return_index=True)[1]]


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
    if not numpy_supports(scores):
        order = scores.topk(k + 1, -1).indices
        return order[:, :k], order[:, k - 1 :]
    chosen = select_winners(scores, k)
    return chosen.pattern.units[chosen.is_winner].view(-1, k), chosen.pattern.units[chosen.border]
