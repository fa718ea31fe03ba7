"""The gradient of a linear layer's weight, without the zeros of its operands where that is faster.

The operands are the layer's input and the gradient of its output. AbsTopK and masks leave exact
zeros in the one that follows them or, in the backward pass, precedes them. A kernel that leaves the
zeros out is used where it was measured to be faster on this machine, for the sizes and the density
of the sparse operand (`compiled/sparse_gradient.py`). For finite operands the result differs
by rounding only.

Shapes: T tokens, D inputs, M outputs, C channels of the sparse operand, N of the dense one.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wirework import fastest
from wirework.block_pool import empty
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.products import dense_weight_gradient, fit, gradient_library

_MIN_TOKENS = 256
_MIN_SIZE = 1 << 12  # entries of a weight
_SAMPLED_TOKENS = 64  # of which the entries are counted, to estimate the density
_MAX_DENSITY = 1 / 2
_MAX_INVERSE = 64  # of the density; below it, the time hardly depends on the density
_TIMED_SHAPE = (16, 64)  # sequences, tokens


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a linear layer's weight: the sum over tokens of outer products.

    Args:
        grad: (..., M) gradient of the output, contiguous.
        x: (..., D) input.

    Returns:
        (M, D); it may be the transposed view of a contiguous matrix.
    """
    if fit(grad, x) and may_leave_out_zeros(x.shape, grad.shape[-1]):
        outputs, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        pairs = [(outputs, inputs), (inputs, outputs)]  # the first one's result needs no transpose
        for sparse, dense in sorted(pairs, key=lambda pair: pair[0].shape[1]):
            if _is_chosen(sparse, dense):
                gradient = sum_of_outer_products(sparse, dense)
                return gradient if sparse is outputs else gradient.t()
    return dense_weight_gradient(grad, x)


def may_leave_out_zeros(shape: torch.Size, out: int) -> bool:
    """Return whether zeros of the operands can be left out, for an input of a shape and M."""
    width, tokens = shape[-1], shape[:-1].numel()
    return tokens >= _MIN_TOKENS and width * out >= _MIN_SIZE and compiled.is_available()


def sum_of_outer_products(sparse: Tensor, dense: Tensor) -> Tensor:
    """Return `sparse.T @ dense`, without autograd; the cost follows the nonzero entries.

    Args:
        sparse: (T, C) float32 on the CPU.
        dense: (T, N) of the same kind; N is a multiple of 64.

    Returns:
        (C, N); the same bits for any number of threads.
    """
    from wirework.nn.kernels.compiled.sparse_gradient import COLUMNS, add_outer_products

    assert len(sparse) == len(dense)
    assert dense.shape[1] % COLUMNS == 0
    entries, rows = (t.detach().contiguous().numpy() for t in (sparse, dense))
    out = empty((entries.shape[1], rows.shape[1]))
    filled, end = out.numpy(), rows.shape[1]
    # A range of columns for each thread, as wide as possible: each lists the entries anew.
    width = -(-end // (COLUMNS * torch.get_num_threads())) * COLUMNS

    def add(ranges: slice) -> None:
        last = min(ranges.stop * width, end)
        add_outer_products(entries, rows, ranges.start * width, last, filled)

    each_piece(-(-end // width), entries.size, add)
    return out


def _is_chosen(sparse: Tensor, dense: Tensor) -> bool:
    """Return whether leaving out zeros of (T, C) was measured to be faster here."""
    from wirework.nn.kernels.compiled.sparse_gradient import COLUMNS

    channels, width = sparse.shape[1], dense.shape[1]
    density = _sampled_density(sparse)
    if width % COLUMNS or density > _MAX_DENSITY:
        return False
    inverse = 1 << int(1 / max(density, 1 / _MAX_INVERSE)).bit_length() - 1
    channels, width = (1 << (size - 1).bit_length() for size in (channels, width))
    # One choice cannot be measured inside the measurement of another.
    gradient_library(torch.Size((*_TIMED_SHAPE, channels)), width)
    key = f"weight gradient {channels}x{width} 1/{inverse}"
    return fastest.choose(key, "dense", lambda: _ways(channels, width, inverse)) == "sparse"


def _sampled_density(sparse: Tensor) -> float:
    """Return the density of some rows of (T, C), spread over all tokens."""
    rows = sparse[:: max(1, len(sparse) // _SAMPLED_TOKENS)].numpy()
    return float(np.count_nonzero(rows) / rows.size)


def _ways(channels: int, width: int, inverse: int) -> dict[str, Callable[[], Tensor]]:
    n_sequences, n_tokens = _TIMED_SHAPE
    generator = torch.Generator().manual_seed(0)
    sparse = torch.randn(n_sequences * n_tokens, channels, generator=generator)
    sparse[torch.rand(sparse.shape, generator=generator) > 1 / inverse] = 0
    dense = torch.randn(n_sequences * n_tokens, width, generator=generator)
    outputs, inputs = (t.view(n_sequences, n_tokens, -1) for t in (dense, sparse))
    return {
        "dense": lambda: dense_weight_gradient(outputs, inputs),
        "sparse": lambda: sum_of_outer_products(sparse, dense),
    }
