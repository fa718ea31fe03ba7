"""How far two streams are apart when each token is brought to unit length.

Shapes: N tokens, D channels. Source: Ferrao et al. 2025 (reconstruction loss).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LEAST = 1e-12  # below this length a token is divided by it, as torch's normalize does


def unit_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference of (..., D) and (..., D) at unit length, a scalar.

    In float32 or wider, under autocast too, which would round the differences of close streams.
    """
    compute = torch.promote_types(x.dtype, torch.float32)
    x, y = x.to(compute), y.to(compute)
    with torch.autocast(x.device.type, enabled=False):
        apart: Tensor = _UnitDistance.apply(x, y)  # type: ignore[no-untyped-call]
    return apart


class _UnitDistance(torch.autograd.Function):
    """With u = x/|x| and v = y/|y|, |u - v|^2 has the gradient 2 (cos u - v) / |x|."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        by_x, by_y = (_inverse_length(t) for t in (x, y))
        # Not 2 - 2 cos: where the streams nearly agree that would cancel.
        apart = (x * by_x).addcmul_(y, by_y, value=-1)
        squares = torch.linalg.vecdot(apart, apart).unsqueeze(-1)
        ctx.save_for_backward(x, y, by_x, by_y, 1 - squares / 2)
        mean: Tensor = squares.mean() / x.shape[-1]
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, y, by_x, by_y, cosine = ctx.saved_tensors
        scale = 2 * grads[0] / x.numel()
        across = by_x * by_y * scale
        to_x = (x * (cosine * by_x.square() * scale)).addcmul_(y, across, value=-1)
        to_y = (y * (cosine * by_y.square() * scale)).addcmul_(x, across, value=-1)
        return to_x, to_y


def _inverse_length(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length.clamp_(min=_LEAST).reciprocal_()
