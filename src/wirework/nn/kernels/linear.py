"""Linear layers whose float32 products are computed in the fastest way on this machine.

If the weight has few nonzero entries, the output and the gradient of the input are computed from
its compressed rows (`nn/kernels/sparse_linear.py`). Other products use the library that is fastest
for their shape (`nn/kernels/products.py`): the output, the gradient of the input and that of the
weight are chosen separately. The gradient of the weight may leave out zeros of the activations
(`nn/kernels/weight_gradient.py`). If torch is the choice for all three, its own linear layer is
used. On a GPU that is always so, unless the user asks for the products of
`nn/kernels/device_sparse_linear.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.device_sparse_linear import linear_by_triton
from wirework.nn.kernels.live_weight import LiveWeight, live_embedding, live_linear
from wirework.nn.kernels.products import (
    fit,
    gradient_library,
    layout,
    library_for,
    product,
)
from wirework.nn.kernels.sparse_linear import (
    CompressedRows,
    compressed_if_faster,
    sparse_product,
    transposed_once,
)
from wirework.nn.kernels.weight_gradient import may_leave_out_zeros, weight_gradient


class Linear(nn.Linear):
    """`nn.Linear` that computes its output with `linear`, or from its live entries."""

    live: LiveWeight | None = None
    """The trained entries of `weight`, if the others are not trained."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        if self.live is not None:
            return live_linear(x, self.live, self.bias)
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` of which only live entries may be trained."""

    live: LiveWeight | None = None
    """The trained entries of `weight`, if the others are not trained."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., D) of (...) int64."""
        return super().forward(input) if self.live is None else live_embedding(input, self.live)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the same as `torch.nn.functional.linear`.

    Second derivatives and functorch transforms may be unavailable.

    Args:
        x: (..., D).
        weight: (M, D).
        bias: (M,), or None.

    Returns:
        (..., M).
    """
    fits = x.dim() > 1 and x.shape[-1] == weight.shape[1] and _fits(bias, weight)
    if fits and (by_triton := linear_by_triton(x, weight, bias)) is not None:
        return by_triton
    ours = fits and fit(x, weight) and not torch.is_autocast_enabled("cpu")
    rows = compressed_if_faster(weight) if ours else None
    if not ours or (rows is None and _all_by_torch(x, weight)):
        return F.linear(x, weight, bias)
    return linear_from_rows(x, weight, bias, rows)


def linear_from_rows(
    x: Tensor, weight: Tensor, bias: Tensor | None, rows: CompressedRows | None
) -> Tensor:
    """Return `linear`, computed from the compressed rows of the weight; None for dense products."""
    out: Tensor = _Linear.apply(x, weight, bias, rows)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rows: CompressedRows | None
    ) -> Tensor:
        to_x, to_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(x if to_weight else None, weight if to_x and rows is None else None)
        ctx.rows = rows
        tokens = x.flatten(0, -2)
        out = (
            product(tokens, weight.t(), bias)
            if rows is None
            else sparse_product(tokens, rows, bias)
        )
        return out.reshape(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        tokens = grad.flatten(0, -2)
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        input_gradient = None
        if to_x:
            rows = ctx.rows
            gradient = (
                product(tokens, weight)
                if rows is None
                else sparse_product(tokens, transposed_once(rows))
            )
            input_gradient = gradient.reshape(*grad.shape[:-1], -1)
        return (
            input_gradient,
            weight_gradient(grad, x) if to_weight else None,
            tokens.sum(0) if to_bias else None,
            None,
        )


def _all_by_torch(x: Tensor, weight: Tensor) -> bool:
    """Return whether torch is the choice for every product that this layer needs."""
    out, width = weight.shape
    rows = x.shape[:-1].numel()
    graded = torch.is_grad_enabled()
    return (
        library_for("n" + layout(weight.t()), rows, width, out) == "torch"
        and not (
            graded
            and x.requires_grad
            and library_for("n" + layout(weight), rows, out, width) != "torch"
        )
        and not (graded and weight.requires_grad and not _gradient_by_torch(x.shape, out))
    )


def _gradient_by_torch(shape: torch.Size, out: int) -> bool:
    return gradient_library(shape, out) == "torch" and not may_leave_out_zeros(shape, out)


def _fits(bias: Tensor | None, weight: Tensor) -> bool:
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype)
