"""GELU followed by AbsTopK: the neurons of a weight-sparse MLP.

In float32 on a CPU, a compiled kernel reads each row once (`compiled/gelu.py`). For the backward
pass it saves the derivatives at the k kept entries, instead of the input of GELU: a quarter of the
memory if a quarter of the neurons is kept.

Shapes: R rows, N entries a row.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty, empty_like
from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.top_k import abs_top_k, refuse_nan


def activated_top_k(x: Tensor, activation: Activation, k: int) -> Tensor:
    """Return `abs_top_k(activate(x, activation), k)`, with GELU accurate to 3e-7 times |x|.

    Args:
        x: (..., N) floats.
        activation: the non-linearity.
        k: number of entries kept in each row, 1 <= k <= N. Ties go to the lower index.

    Returns:
        (..., N), dtype of `x`.

    Raises:
        ValueError: as `abs_top_k`.

    Source: Gao et al. 2025, App. A.1.
    """
    if activation == "gelu" and _is_compiled(x) and 1 <= k < x.shape[-1]:
        out: Tensor = _GeluTopK.apply(x, k)  # type: ignore[no-untyped-call]
        return out
    return abs_top_k(activate(x, activation), k)


def activate_like_top_k(x: Tensor, activation: Activation) -> Tensor:
    """Return `activate(x, activation)` with the bits from which `activated_top_k` chooses."""
    if activation == "gelu" and _is_compiled(x):
        out: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
        return out
    return activate(x, activation)


def _is_compiled(x: Tensor) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.dim() or not x.numel():
        return False
    return not torch.compiler.is_compiling() and compiled.is_available()


class _GeluTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int) -> Tensor:
        from wirework.nn.kernels.compiled.gelu import gelu_top_k_rows

        rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
        count, width = rows.shape
        kept, mask = empty_like(rows), torch.empty(count, -(-width // 8), dtype=torch.uint8)
        slopes = empty((count, k if ctx.needs_input_grad[0] else 0))
        given, out, bits = rows.numpy(), kept.numpy(), kept.view(torch.int32).numpy()
        packed, derivatives = mask.numpy(), slopes.numpy()
        infinity = np.float32(np.inf).view(np.int32)

        def work(part: slice) -> None:
            has_nan = gelu_top_k_rows(
                given[part], k, infinity, out[part], bits[part], packed[part], derivatives[part]
            )
            refuse_nan(has_nan)

        each_piece(count, width, work)
        ctx.save_for_backward(mask, slopes)
        return kept.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        from wirework.nn.kernels.compiled.gelu import gelu_top_k_backward

        mask, slopes = (t.numpy() for t in ctx.saved_tensors)
        rows = grads[0].reshape(len(mask), -1).contiguous()
        to_x = empty_like(rows)
        given, made = rows.numpy(), to_x.numpy()

        def work(part: slice) -> None:
            gelu_top_k_backward(given[part], mask[part], slopes[part], made[part])

        each_piece(len(rows), rows.shape[1], work)
        return to_x.view(grads[0].shape), None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from wirework.nn.kernels.compiled.gelu import gelu_rows

        rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
        made = empty_like(rows)
        given, out = rows.numpy(), made.numpy()
        each_piece(len(rows), rows.shape[1], lambda part: gelu_rows(given[part], out[part]))
        ctx.save_for_backward(x)
        return made.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return activate_backward(grads[0], x, "gelu")
