"""Mean ablation under trained masks, with a gradient of one pass over the activations.

Written with torch's products and sums, the gradient reads and writes the activations six times.

Shapes: R masks, T tokens of each, N nodes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty_like
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece


def can_be_ablated(x: Tensor, gates: Tensor, mean: Tensor) -> bool:
    """Return whether `ablated` takes these: float32 on the CPU, and gates that are trained."""
    return (
        gates.requires_grad
        and not mean.requires_grad
        and x.dtype == gates.dtype == mean.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and compiled.is_available()
    )


def ablated(x: Tensor, gates: Tensor, mean: Tensor) -> Tensor:
    """Return `x * gates + (1 - gates) * mean`.

    Args:
        x: (R, T, N).
        gates: (R, N).
        mean: (N,).

    Returns:
        (R, T, N); gradients flow to `x` and `gates`, the same bits for any number of threads.
    """
    out: Tensor = _Ablated.apply(x, gates, mean)  # type: ignore[no-untyped-call]
    return out


class _Ablated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(x, gates, mean)
        return torch.addcmul(((1 - gates) * mean)[:, None], x, gates[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        from wirework.nn.kernels.compiled.mask_gates import gate_gradients

        x, gates, mean = (t.detach().contiguous() for t in ctx.saved_tensors)
        to_x, to_gates = empty_like(x), torch.empty_like(gates)
        grad, inputs, weights = (t.numpy() for t in (grads[0].contiguous(), x, gates))
        means, of_x, of_gates = mean.numpy(), to_x.numpy(), to_gates.numpy()

        def fill(masks: slice) -> None:
            gate_gradients(
                grad[masks], inputs[masks], weights[masks], means, of_x[masks], of_gates[masks]
            )

        each_piece(len(x), x[0].numel(), fill)
        return to_x, to_gates, None
