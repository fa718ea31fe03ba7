"""An MLP of which each token keeps k neurons, at the cost of those where that is enough.

Of its six matrix products, forward and backward, two need all neurons: the first one, and the
gradient that the mask gets. The other four are sums over k rows of a matrix for each token, or over
a neuron's tokens for each row: `embedding_bag` does both.
Shapes: N tokens, D what is read, M neurons, E what is written, k winners.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.linear import product

_SHARE = 8  # from one neuron in so many on, dense products are as fast


def pays(neurons: int, k: int, device: torch.device) -> bool:
    """Whether `winning_mlp` is faster than dense products."""
    return device.type == "cpu" and k * _SHARE <= neurons


def winning_mlp(
    x: Tensor,
    up: tuple[Tensor, Tensor | None],
    down: tuple[Tensor, Tensor | None],
    mask: Tensor,
    winners: Tensor,
    activation: Activation,
) -> Tensor:
    """Return `down(mask * activation(up(x)))`; the gradients of all are those of the dense formula.

    Args:
        x: (..., D).
        up: weight (M, D) and bias (M,) or None.
        down: weight (E, M) and bias (E,) or None.
        mask: (..., M), 1 at the winners and 0 elsewhere.
        winners: (..., k) int64, rising.
        activation: the non-linearity.

    Returns:
        (..., E) in the dtype of the weights.
    """
    parts = (t.flatten(0, -2) for t in (x, mask, winners))
    out: Tensor = _WinningMLP.apply(*parts, *up, *down, activation)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class _WinningMLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mask: Tensor,  # noqa: ARG004  (known by its winners; it gets a gradient)
        winners: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        activation: Activation,
    ) -> Tensor:
        device = x.device.type
        lowered = torch.is_autocast_enabled(device)
        ctx.products = torch.get_autocast_dtype(device) if lowered else up.dtype
        ctx.read, ctx.activation, ctx.biases = x.dtype, activation, (up_bias, down_bias)
        x = x.to(ctx.products)
        neurons = product(x, up.to(ctx.products).t()).to(up.dtype)
        if up_bias is not None:
            neurons += up_bias
        kept = activate(neurons.gather(-1, winners), activation)
        ctx.save_for_backward(x, winners, up, down, neurons, kept)
        written = _rows(winners, down.t().contiguous(), kept)
        return written if down_bias is None else written.add_(down_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, winners, up, down, neurons, kept = ctx.saved_tensors
        grad = grads[0].contiguous()
        to_kept = product(grad.to(ctx.products), down.to(ctx.products)).to(up.dtype)
        to_mask = activate(neurons, ctx.activation).mul_(to_kept)
        at = to_kept.gather(-1, winners), neurons.gather(-1, winners)
        to_neurons = activate_backward(*at, ctx.activation)
        by_neuron = _Transposed(winners, len(up))
        up_bias, down_bias = ctx.biases
        return (
            _rows(winners, up, to_neurons).to(ctx.read),
            to_mask,
            None,
            by_neuron.rows(x.to(up.dtype), to_neurons),
            None if up_bias is None else by_neuron.sums(to_neurons),
            by_neuron.rows(grad, kept).t(),
            None if down_bias is None else grad.sum(0),
            None,
        )


def _rows(indices: Tensor, matrix: Tensor, by: Tensor) -> Tensor:
    """Return (N, E): the rows of (M, E) that (N, k) indices name, times (N, k), summed."""
    return F.embedding_bag(indices, matrix, per_sample_weights=by, mode="sum")


class _Transposed:
    """Which tokens each neuron won at.

    Args:
        winners: (N, k) below `neurons`.
        neurons: M.
    """

    def __init__(self, winners: Tensor, neurons: int) -> None:
        flat = winners.numpy().ravel()
        narrow = flat.astype(np.uint16) if neurons <= 1 << 16 else flat  # sorted by digits
        counts = np.bincount(flat, minlength=neurons)
        self._order = torch.from_numpy(np.argsort(narrow, kind="stable"))
        self._tokens = self._order // winners.shape[-1]
        self._starts = torch.from_numpy(np.cumsum(counts) - counts)

    def rows(self, matrix: Tensor, by: Tensor) -> Tensor:
        """Return (M, E): the rows of (N, E) at a neuron's tokens, times (N, k) there, summed."""
        scaled = by.flatten()[self._order]
        return F.embedding_bag(
            self._tokens, matrix, self._starts, per_sample_weights=scaled, mode="sum"
        )

    def sums(self, by: Tensor) -> Tensor:
        """Return (M,): the sum of (N, k) over a neuron's tokens."""
        return self.rows(by.new_ones(by.shape[0], 1), by).squeeze(-1)
