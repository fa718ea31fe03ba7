"""k winners take all: which k units of a token stay on, with a gradient as if softly chosen.

The mask is 1 at the k highest scores of a token. Its gradient is that of `k s / sum(s)`, with
`s = sigmoid((x - gamma) / (T + epsilon))`, gamma the midpoint of the k-th and the (k+1)-th score
and T `temperature` times their difference: steep, so that few units are not all but 0 or 1.
Shapes: N tokens, U units of one layer and kind, S places. Source: Ferrao et al. 2025.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.places import Places

_PIECE = 1 << 17  # entries whose gradient is made at once: what the passes hand on stays in cache


def k_winners(
    scores: Tensor,
    k: int,
    *,
    temperature: float = 0.1,
    epsilon: float = 1e-12,
    mask: Literal["hard", "soft"] = "hard",
) -> Tensor:
    """Choose the k highest scores of each row.

    A hard mask is 1 at exactly k scores (of equal ones, on a CPU, those of lower index) and has
    the gradient of the soft one.

    Args:
        scores: (..., U).
        k: 1 <= k < U.
        temperature: of the soft mask; lower is steeper.
        epsilon: keeps the slope finite where two scores are equal.
        mask: `soft` gives the soft mask itself, which leaks: only to reproduce early models.

    Returns:
        (..., U), in the dtype of the scores.

    Raises:
        ValueError: k out of range.
    """
    width = scores.shape[-1]
    if not 1 <= k < width:
        raise ValueError(f"k must be at least 1 and below the {width} units, got {k}")
    found: Tensor = _KWinners.apply(scores, k, temperature, epsilon, mask == "hard")  # type: ignore[no-untyped-call]
    return found


def by_numpy(x: Tensor) -> bool:
    """Whether `contenders` takes scores of this kind."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


class Contenders(NamedTuple):
    """The units of each token that won, and those close behind."""

    places: Places
    won: Tensor
    """(S,) bool."""
    ends: Tensor
    """(N, 2) int64, which of the S are a token's k-th and (k+1)-th."""


def contenders(
    scores: Tensor, k: int, temperature: float = 0.0, epsilon: float = 0.0
) -> Contenders:
    """Return the winners, the next one, and what lies so close behind that it gets a gradient.

    Left out is whose slope, under a sigmoid of that temperature and epsilon, is lost in rounding
    beside that of the next one.

    Args:
        scores: (N, U) float32 or float64 on a CPU.
        k: 1 <= k < U.
        temperature, epsilon: as `k_winners` takes them.
    """
    values = scores.detach().numpy()
    count, width = values.shape
    found = {}

    def choose(rows: slice) -> None:
        found[rows.start] = _contenders(values[rows], k, temperature, epsilon)

    choose(slice(0, 0))  # without rows: what is found where there are none
    each_piece(count, width, choose)
    parts, before = [], 0
    for start in sorted(found):
        of, units, won, ends = found[start]
        parts.append((of + start, units, won, ends + before))
        before += len(units)
    joined = [torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)]
    return Contenders(Places(joined[0], joined[1], (count, width)), joined[2], joined[3])


_Ints = npt.NDArray[np.int64]


def _contenders(
    scores: npt.NDArray[Any], k: int, temperature: float, epsilon: float
) -> tuple[_Ints, _Ints, npt.NDArray[np.bool_], _Ints]:
    """Return tokens, units and whether they won, (S,) each, and both ends, (N, 2), of some rows."""
    inside, outside = _border(scores, k)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = inside - outside
        # Measured from the border, as slopes fall from there: at a low temperature all are small.
        reach = -1.2 * np.log(np.finfo(scores.dtype).eps)
        lowest = outside - reach * (temperature * gap + epsilon)
    odd = np.flatnonzero(~((gap > 0) & (gap < np.inf)))
    if len(odd):  # ties, infinities, NaN: by their ranks, all units in reach
        scores = scores.copy()
        scores[odd] = _ranks(scores[odd])
        inside, outside = _border(scores, k)
        lowest[odd] = 0
    width = scores.shape[1]
    flat = np.flatnonzero(scores >= lowest)
    tokens = flat // width
    at = scores.reshape(-1)[flat]
    ends = [_first(tokens, at == end[tokens, 0]) for end in (inside, outside)]
    return tokens, flat - tokens * width, at >= inside[tokens, 0], np.stack(ends, 1)


def _border(scores: npt.NDArray[Any], k: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the k-th and the (k+1)-th highest of each row, (N, 1)."""
    first = scores.shape[1] - k
    parted = np.partition(scores, first - 1, axis=-1)
    return parted[:, first:].min(-1, keepdims=True), parted[:, first - 1 : first]


def _ranks(scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return ranks in a row, (N, U), 0 the lowest: of equal entries the last; NaN is highest."""
    rising = np.argsort(scores[:, ::-1], axis=-1, kind="stable")
    return np.argsort(rising, axis=-1)[:, ::-1]


def _first(tokens: _Ints, hits: npt.NDArray[np.bool_]) -> _Ints:
    """Return the first place of each token among those hit, which every token has."""
    places = np.flatnonzero(hits)
    return places[np.unique(tokens[places], return_index=True)[1]]


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
            found = torch.zeros_like(scores).scatter_(-1, winners, 1.0)
        else:
            found = _along(scores, border, temperature, epsilon)[0].sigmoid_()
            found.mul_(k / found.sum(-1, keepdim=True))
        return found.view(ctx.shape)

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
    """Return the k winners of each row of (N, U), (N, k), and the k-th and (k+1)-th, (N, 2)."""
    if not by_numpy(scores):
        order = scores.topk(k + 1, -1).indices
        return order[:, :k], order[:, k - 1 :]
    found = contenders(scores, k)
    return found.places.units[found.won].view(-1, k), found.places.units[found.ends]
