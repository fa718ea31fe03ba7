"""RMSNorm with a hand-written gradient: fewer passes than autograd's, bf16 output for fp32 input.

Shapes: (..., D) in, (..., D) out, normalised over D.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PIECE = 1 << 19  # entries of which the gradient is computed at once, so that they stay in cache


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension, times a gain.

    Zero stays zero and so keeps its meaning in the residual stream (Gao et al. 2025, sec. 2.1).

    Args:
        width: D.
        eps: added to the mean square; None for the machine epsilon of the computation's dtype,
            which is float32 for narrower inputs.
    """

    def __init__(self, width: int, eps: float | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D); under autocast the result has autocast's dtype."""
        device = x.device.type
        lowered = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if lowered else x.dtype
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps, dtype)  # type: ignore[no-untyped-call]
        return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float | None, dtype: torch.dtype) -> Tensor:
        compute = torch.promote_types(x.dtype, torch.float32)
        eps = torch.finfo(compute).eps if eps is None else eps
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=compute).square_()
        scale = squares.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, gain, scale)
        normed: Tensor = (x * scale).mul_(gain)
        return normed.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, gain, scale = ctx.saved_tensors
        width = x.shape[-1]
        to_x = torch.empty(x.shape, dtype=scale.dtype, device=x.device)
        to_gain = torch.zeros_like(gain)
        # A GPU has no such cache, and each piece would queue as many kernels as the whole.
        rows = max(1, _PIECE // width) if x.device.type == "cpu" else max(1, x.numel() // width)
        parts = (t.reshape(-1, t.shape[-1]).split(rows) for t in (x, scale, grads[0], to_x))
        for part, row_scale, grad, out in zip(*parts, strict=True):
            unit = part * row_scale
            to_gain += torch.mul(grad, unit, out=out).sum(0)
            torch.mul(grad, gain, out=out)
            projection = torch.linalg.vecdot(out, unit).unsqueeze_(-1).div_(-width)
            out.addcmul_(unit, projection).mul_(row_scale)
        return to_x, to_gain, None, None
