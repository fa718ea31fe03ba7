"""MLP with a sparse mask on its neurons, at the cost of the kept neurons only.

All six products of forward and backward are computed at the entries of the mask: the winners, and
the neurons close behind them, whose mask gets a gradient.
Shapes: N tokens, D input width, M neurons, E output width, S entries of the mask.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.kernels.sparse_gate import SparseMask
from wirework.nn.kernels.sparse_pattern import SparsePattern


def sparse_mlp(
    x: Tensor,
    up: tuple[Tensor, Tensor | None],
    down: tuple[Tensor, Tensor | None],
    neurons: SparseMask,
    activation: Activation,
) -> Tensor:
    """Return `down(mask * activation(up(x)))` in the dtype of the weights, also under autocast.

    The gradients are those of the dense formula; that of the mask is computed at its entries only.

    Args:
        x: (..., D).
        up: weight (M, D) and bias (M,) or None.
        down: weight (E, M) and bias (E,) or None.
        neurons: sparse mask of the neurons.
        activation: the non-linearity.

    Returns:
        (..., E).
    """
    with torch.autocast("cpu", enabled=False):
        read, mask = (t.to(up[0].dtype) for t in (x.flatten(0, -2), neurons.values))
        out: Tensor = _SparseMLP.apply(read, mask, *up, *down, neurons.pattern, activation)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class _SparseMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mask: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        pattern: SparsePattern,
        activation: Activation,
    ) -> Tensor:
        neurons = pattern.products(x, up)
        if up_bias is not None:
            neurons += pattern.of_units(up_bias)
        acts = activate(neurons, activation)
        ctx.pattern, ctx.activation = pattern, activation
        ctx.save_for_backward(x, mask, up, down, neurons, acts)
        written = pattern.sum_rows_by_token(down.t().contiguous(), mask * acts)
        return written if down_bias is None else written.add_(down_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, up, down, neurons, acts = ctx.saved_tensors
        pattern, grad = ctx.pattern, grads[0].contiguous()
        to_kept = pattern.products(grad, down.t())
        to_neurons = activate_backward(mask * to_kept, neurons, ctx.activation)
        to_x, to_mask, to_up, to_up_bias, to_down, to_down_bias, *_ = ctx.needs_input_grad
        return (
            pattern.sum_rows_by_token(up, to_neurons) if to_x else None,
            acts * to_kept if to_mask else None,
            pattern.sum_rows_by_unit(x, to_neurons) if to_up else None,
            pattern.sum_by_unit(to_neurons) if to_up_bias else None,
            pattern.sum_rows_by_unit(grad, mask * acts).t() if to_down else None,
            grad.sum(0) if to_down_bias else None,
            None,
            None,
        )
