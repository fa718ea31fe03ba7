"""Gates that compute their gradient only where it is nonzero: at the winners and close behind them.

With 512 units and 8 winners, about a dozen units have a slope that is not lost in rounding. The
gradient then needs sums over a few rows in place of passes over all scores and two matrix products.
Shapes: N = B T tokens, U units, S entries of the sparse mask, D channels.
Source: Ferrao et al. 2025.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.sparse_pattern import SparsePattern
from wirework.nn.kernels.winner_selection import WinnerSelection, is_supported, select_winners

_MAX_SHARE = 1 / 8  # of winners among the units; above it, dense passes are as fast
_MAX_TEMPERATURE = 0.25  # above it, too many units have a slope


class Head(NamedTuple):
    """A linear head that scores units."""

    x: Tensor
    """(B, T, D) input."""
    weight: Tensor
    """(U, D)."""
    bias: Tensor
    """(U,)."""


class SparseMask(NamedTuple):
    """A mask stored at the entries that can have a gradient."""

    pattern: SparsePattern
    """Winners and units close behind."""
    values: Tensor
    """(S,), 1 at the k winners of a token and 0 close behind them."""

    def spread(self, like: Tensor) -> Tensor:
        """Return the dense mask, (B, T, U); B and T are those of `like`, (B, T, ...)."""
        return self.pattern.spread(self.values).view(*like.shape[:-1], self.pattern.shape[1])


def dense_mask(mask: Tensor | SparseMask, like: Tensor) -> Tensor:
    """Return a mask as a dense tensor, (B, T, U); B and T are those of `like`, (B, T, ...)."""
    return mask.spread(like) if isinstance(mask, SparseMask) else mask


def sparse_is_faster(head: Head, k: int, temperature: float) -> bool:
    """Return whether `sparse_k_winners` supports the head and is faster than `k_winners`."""
    few = k <= _MAX_SHARE * len(head.weight)
    return is_supported(head.x) and few and temperature <= _MAX_TEMPERATURE


def total_scores(heads: Sequence[Head]) -> Tensor:
    """Return the sum of the scores of all heads, (..., U)."""
    first, *others = (linear(*head) for head in heads)
    return sum(others, first)


def sparse_k_winners(
    heads: Sequence[Head], k: int, temperature: float, epsilon: float
) -> SparseMask:
    """Return the mask of the k units of each token with the highest total score.

    Args:
        heads: linear heads whose scores are added; float32 or float64 on a CPU.
        k: 1 <= k < U, unchecked.
        temperature, epsilon: as in `k_winners`.

    Returns:
        The sparse mask, with the same gradient as the mask of `k_winners`.

    Source: Ferrao et al. 2025.
    """
    heads = [head._replace(x=head.x.flatten(0, -2)) for head in heads]
    with torch.no_grad():
        scores = total_scores(heads)
    selection = select_winners(scores, k, temperature, epsilon)
    flat = (tensor for head in heads for tensor in head)
    values = _SparseKWinners.apply(selection, k, temperature, epsilon, *flat)  # type: ignore[no-untyped-call]
    return SparseMask(selection.pattern, values)


class _SparseKWinners(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        selection: WinnerSelection,
        k: int,
        temperature: float,
        epsilon: float,
        *heads: Tensor,
    ) -> Tensor:
        ctx.selection, ctx.settings = selection, (k, temperature, epsilon)
        ctx.save_for_backward(*heads)
        return selection.is_winner.to(selection.scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        heads = ctx.saved_tensors
        pattern = ctx.selection.pattern
        to_scores = _to_scores(grads[0], ctx.selection, *ctx.settings)
        need = ctx.needs_input_grad[4:]
        to_bias = pattern.sum_by_unit(to_scores) if any(need[2::3]) else None
        gradients: list[Tensor | None] = []
        for x, weight, to_x, to_weight in zip(
            heads[::3], heads[1::3], need[::3], need[1::3], strict=True
        ):
            gradients.append(pattern.sum_rows_by_token(weight, to_scores) if to_x else None)
            gradients.append(pattern.sum_rows_by_unit(x, to_scores) if to_weight else None)
            gradients.append(to_bias)
        return (*[None] * 4, *gradients)


def _to_scores(
    grad: Tensor,
    selection: WinnerSelection,
    k: int,
    temperature: float,
    epsilon: float,
) -> Tensor:
    """Return the gradient of the scores (S,) from that of the mask (S,), as in `winners.py`."""
    pattern, scores, border = selection.pattern, selection.scores, selection.border
    inside, outside = scores[border].unbind(-1)
    width = temperature * (inside - outside) + epsilon
    scaled = (scores - pattern.of_tokens((inside + outside) / 2)) / pattern.of_tokens(width)
    soft = scaled.sigmoid()
    total = pattern.sum_by_token(soft)
    mean = pattern.sum_by_token(grad * soft) / total
    factor = pattern.of_tokens(k / (total * width))
    out = (grad - pattern.of_tokens(mean)) * soft * (1 - soft) * factor
    half_gradient = -pattern.sum_by_token(out) / 2
    width_gradient = -pattern.sum_by_token(out * scaled) * temperature
    of_border = torch.stack([half_gradient + width_gradient, half_gradient - width_gradient], 1)
    return out.index_add_(0, border.flatten(), of_border.flatten())
