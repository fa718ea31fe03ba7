"""Mean squared difference of two streams after scaling each token to unit length.

Shapes: N tokens, D channels. Source: Ferrao et al. 2025 (reconstruction loss).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_MIN_LENGTH = 1e-12  # shorter tokens are divided by it, as in torch's normalize


def unit_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared difference of two streams at unit length.

    It is computed in float32 or wider, also under autocast, which would round small differences.

    Args:
        x: (..., D).
        y: (..., D).

    Returns:
        Scalar, mean over tokens and channels.

    Source: Ferrao et al. 2025 (reconstruction loss).
    """
    compute = torch.promote_types(x.dtype, torch.float32)
    x, y = x.to(compute), y.to(compute)
    with torch.autocast(x.device.type, enabled=False):
        difference: Tensor = _UnitDistance.apply(x, y)  # type: ignore[no-untyped-call]
    return difference


class _UnitDistance(torch.autograd.Function):
    """With u = x/|x| and v = y/|y|, |u - v|^2 has the gradient 2 (cos u - v) / |x|."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        by_x, by_y = (_inverse_length(t) for t in (x, y))
        # Not 2 - 2 cos, which loses precision where the streams nearly agree.
        difference = (x * by_x).addcmul_(y, by_y, value=-1)
        squares = torch.linalg.vecdot(difference, difference).unsqueeze(-1)
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
    return length.clamp_(min=_MIN_LENGTH).reciprocal_()
