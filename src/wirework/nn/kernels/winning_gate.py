"""Gates whose gradient is made only where it is not zero: at the winners and close behind them.

Of 512 units and 8 winners a dozen have a slope that is not lost in rounding. So of the gradient's
passes over all scores and of its two products nothing is left but sums over a few rows.
Shapes: N tokens of B sequences of T, U units, S places, D channels. Source: Ferrao et al. 2025.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.places import Places
from wirework.nn.kernels.winners import Contenders, by_numpy, contenders

_SHARE = 8  # from one unit in so many on, dense passes are as fast
_STEEP = 0.25  # temperature from which on too many units have a slope


class Head(NamedTuple):
    """A linear head that scores units."""

    x: Tensor
    """(B, T, D), what it reads."""
    weight: Tensor
    """(U, D)."""
    bias: Tensor
    """(U,)."""


class Winning(NamedTuple):
    """A mask by the places that can have a gradient."""

    places: Places
    values: Tensor
    """(S,), 1 at the k winners of a token and 0 close behind them."""

    def spread(self, like: Tensor) -> Tensor:
        """Return the mask for all units, (B, T, U), of (B, T, ...)."""
        return self.places.spread(self.values).view(*like.shape[:-1], self.places.shape[1])


def dense(mask: Tensor | Winning, like: Tensor) -> Tensor:
    """Return a mask for all units, (B, T, U), of (B, T, ...)."""
    return mask.spread(like) if isinstance(mask, Winning) else mask


def is_faster(head: Head, k: int, temperature: float) -> bool:
    """Whether `winning_units` takes such a head and is faster than `k_winners` of its scores."""
    return by_numpy(head.x) and k * _SHARE <= len(head.weight) and temperature <= _STEEP


def summed(heads: Sequence[Head]) -> Tensor:
    """Return the sum of all heads' scores, (..., U)."""
    first, *others = (linear(*head) for head in heads)
    return sum(others, first)


def winning_units(heads: Sequence[Head], k: int, temperature: float, epsilon: float) -> Winning:
    """Choose the k units of each token that score highest.

    Args:
        heads: whose scores are summed; float32 or float64 on a CPU.
        k: 1 <= k < U, unchecked.
        temperature, epsilon: as `k_winners` takes them.

    Returns:
        The mask, with the gradient that `k_winners` gives it.
    """
    heads = [head._replace(x=head.x.flatten(0, -2)) for head in heads]
    with torch.no_grad():
        scores = summed(heads)
    found = contenders(scores, k, temperature, epsilon)
    at = scores[found.places.tokens, found.places.units]
    flat = (tensor for head in heads for tensor in head)
    values = _WinningUnits.apply(found, at, k, temperature, epsilon, *flat)  # type: ignore[no-untyped-call]
    return Winning(found.places, values)


class _WinningUnits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        found: Contenders,
        at: Tensor,
        k: int,
        temperature: float,
        epsilon: float,
        *heads: Tensor,
    ) -> Tensor:
        ctx.found, ctx.settings = found, (k, temperature, epsilon)
        ctx.save_for_backward(at, *heads)
        return found.won.to(at.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        at, *heads = ctx.saved_tensors
        places = ctx.found.places
        to_scores = _to_scores(grads[0], at, ctx.found, *ctx.settings)
        need = ctx.needs_input_grad[5:]
        to_bias = places.sums_by_unit(to_scores) if any(need[2::3]) else None
        found: list[Tensor | None] = []
        for x, weight, to_x, to_weight in zip(
            heads[::3], heads[1::3], need[::3], need[1::3], strict=True
        ):
            found.append(places.by_token(weight, to_scores) if to_x else None)
            found.append(places.by_unit(x, to_scores) if to_weight else None)
            found.append(to_bias)
        return (*[None] * 5, *found)


def _to_scores(
    grad: Tensor, scores: Tensor, found: Contenders, k: int, temperature: float, epsilon: float
) -> Tensor:
    """Return the gradient of the scores (S,) from that of the mask (S,): see `winners`."""
    places, ends = found.places, found.ends
    inside, outside = scores[ends].unbind(-1)
    spread = temperature * (inside - outside) + epsilon
    along = (scores - ((inside + outside) / 2)[places.tokens]) / spread[places.tokens]
    soft = along.sigmoid()
    total = places.sums_by_token(soft)
    mean = places.sums_by_token(grad * soft) / total
    out = (grad - mean[places.tokens]) * soft * (1 - soft) * (k / (total * spread))[places.tokens]
    half = -places.sums_by_token(out) / 2
    steep = -places.sums_by_token(out * along) * temperature
    out[ends[:, 0]] += half + steep
    out[ends[:, 1]] += half - steep
    return out
