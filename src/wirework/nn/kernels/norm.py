"""RMSNorm with a hand-written gradient: fewer passes than autograd's, bf16 output for fp32 input.

In float32 on a CPU, compiled kernels make one pass over memory (`compiled/norm.py`).

Shapes: (..., D) in, (..., D) out, normalised over D.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty_like
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece

_GAIN_ROWS = 256  # rows whose gradients of the gain are summed apart, for any number of threads
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
        if _is_compiled(x, self.weight, dtype):
            eps = torch.finfo(dtype).eps if self.eps is None else self.eps
            out: Tensor = _CompiledRMSNorm.apply(x, self.weight, eps)  # type: ignore[no-untyped-call]
        else:
            out = _RMSNorm.apply(x, self.weight, self.eps, dtype)  # type: ignore[no-untyped-call]
        return out


def _is_compiled(x: Tensor, gain: Tensor, dtype: torch.dtype) -> bool:
    """Return whether compiled kernels are used, whatever the number of rows."""
    is_float32 = x.dtype == gain.dtype == dtype == torch.float32
    if not is_float32 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return compiled.is_available()


class _CompiledRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        from wirework.nn.kernels.compiled.norm import normalise

        rows = x.reshape(-1, x.shape[-1]).contiguous()
        out, scales = empty_like(rows), rows.new_empty(len(rows))
        given, made, factors = rows.detach().numpy(), out.numpy(), scales.numpy()
        gains, added = gain.detach().contiguous().numpy(), np.float32(eps)

        def work(part: slice) -> None:
            normalise(given[part], gains, added, made[part], factors[part])

        each_piece(len(rows), rows.shape[1], work)
        ctx.save_for_backward(rows, gain, scales)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        from wirework.nn.kernels.compiled.norm import normalise_backward

        rows, gain, scales = ctx.saved_tensors
        to_x, n_parts = empty_like(rows), -(-len(rows) // _GAIN_ROWS)
        to_gains = gain.new_empty(n_parts, len(gain))
        slopes = grads[0].reshape(rows.shape).contiguous().numpy()
        given, factors = rows.detach().numpy(), scales.numpy()
        gains = gain.detach().contiguous().numpy()
        made, sums = to_x.numpy(), to_gains.numpy()

        def work(parts: slice) -> None:
            for i in range(parts.start, min(parts.stop, n_parts)):
                part = slice(i * _GAIN_ROWS, (i + 1) * _GAIN_ROWS)
                normalise_backward(
                    slopes[part], given[part], gains, factors[part], made[part], sums[i]
                )

        each_piece(n_parts, _GAIN_ROWS * rows.shape[1], work)
        return to_x.view(grads[0].shape), to_gains.sum(0), None


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
