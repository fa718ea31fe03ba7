"""Linear layers whose float32 products use the library that is fastest for their shape.

The output, the gradient of the input and that of the weight are products of different shapes; the
library of each is chosen separately (`nn/kernels/products.py`). If torch is the choice for all
three, its own linear layer is used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.products import (
    fit,
    gradient_library,
    layout,
    library_for,
    product,
    weight_gradient,
)


class Linear(nn.Linear):
    """`nn.Linear` that computes its output with `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return linear(x, self.weight, self.bias)


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
    ours = fits and fit(x, weight) and not torch.is_autocast_enabled("cpu")
    if not ours or _all_by_torch(x, weight):
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return product(x.flatten(0, -2), weight.t(), bias).reshape(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        rows = grad.flatten(0, -2)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            product(rows, weight).reshape(*grad.shape[:-1], -1) if to_x else None,
            weight_gradient(grad, x) if to_weight else None,
            rows.sum(0) if to_bias else None,
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
        and not (graded and weight.requires_grad and gradient_library(x.shape, out) != "torch")
    )


def _fits(bias: Tensor | None, weight: Tensor) -> bool:
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype)
