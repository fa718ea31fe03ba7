"""An MLP of which each token keeps few neurons, at the cost of those.

Forward and backward, all six products are made at the places of the winners, and of the neurons
close behind them, whose mask gets a gradient.
Shapes: N tokens, D what is read, M neurons, E what is written, S places.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.kernels.places import Places
from wirework.nn.kernels.winning_gate import Winning


def winning_mlp(
    x: Tensor,
    up: tuple[Tensor, Tensor | None],
    down: tuple[Tensor, Tensor | None],
    neurons: Winning,
    activation: Activation,
) -> Tensor:
    """Return `down(mask * activation(up(x)))`, in the dtype of the weights, under autocast too.

    The gradients of all are those of the dense formula; that of the mask is made at its places.

    Args:
        x: (..., D).
        up: weight (M, D) and bias (M,) or None.
        down: weight (E, M) and bias (E,) or None.
        neurons: the mask.
        activation: the non-linearity.

    Returns:
        (..., E).
    """
    with torch.autocast("cpu", enabled=False):
        read, mask = (t.to(up[0].dtype) for t in (x.flatten(0, -2), neurons.values))
        out: Tensor = _WinningMLP.apply(read, mask, *up, *down, neurons.places, activation)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class _WinningMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mask: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        places: Places,
        activation: Activation,
    ) -> Tensor:
        neurons = places.products(x, up)
        if up_bias is not None:
            neurons += up_bias[places.units]
        acts = activate(neurons, activation)
        ctx.places, ctx.activation = places, activation
        ctx.save_for_backward(x, mask, up, down, neurons, acts)
        written = places.by_token(down.t().contiguous(), mask * acts)
        return written if down_bias is None else written.add_(down_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, up, down, neurons, acts = ctx.saved_tensors
        places, grad = ctx.places, grads[0].contiguous()
        to_kept = places.products(grad, down.t())
        to_neurons = activate_backward(mask * to_kept, neurons, ctx.activation)
        to_x, to_mask, to_up, to_up_bias, to_down, to_down_bias, *_ = ctx.needs_input_grad
        return (
            places.by_token(up, to_neurons) if to_x else None,
            acts * to_kept if to_mask else None,
            places.by_unit(x, to_neurons) if to_up else None,
            places.sums_by_unit(to_neurons) if to_up_bias else None,
            places.by_unit(grad, mask * acts).t() if to_down else None,
            grad.sum(0) if to_down_bias else None,
            None,
            None,
        )
