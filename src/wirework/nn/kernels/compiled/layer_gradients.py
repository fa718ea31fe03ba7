"""The gradients of a linear layer of which only some entries are trained, in one pass.

The gradient of the output is read and transposed once, for the gradients of the input, the entries
and the bias. `tiles.py` explains tiles.

Shapes: T tokens, D inputs, M outputs, E trained entries.
"""

import numpy as np

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.sparse_products import OUTPUTS, Floats, Ints, multiply_tile
from wirework.nn.kernels.compiled.tiles import TILE, VECTORS, aligned_tile, read_tile
from wirework.nn.kernels.compiled.vectors import (
    add_four_products,
    load_vectors,
    product_of_all,
    sum_of_all,
)


@compiled
def layer_gradients(
    x: Floats,
    grad: Floats,
    entries: tuple[Ints, Ints],
    across: tuple[Ints, Ints, Floats],
    to_x: Floats,
    to_entries: Floats,
    to_bias: Floats,
) -> None:
    """Fill in the gradients of the input, the entries and the bias.

    Args:
        x: (T, D) input.
        grad: (T, M) gradient of the output.
        entries: (M + 1,) first entry of each row, and E; (E,) input channel of each.
        across: compressed rows of the transposed weight, (D, M).
        to_x: (T, D) to be filled, or of size 0 if it is not wanted.
        to_entries: (E,) to be filled.
        to_bias: (M,) to be filled, or of size 0.
    """
    starts, columns = entries
    inputs, outputs = aligned_tile(x.shape[1]), aligned_tile(grad.shape[1])
    sums, no_bias = aligned_tile(OUTPUTS), np.zeros(x.shape[1], np.float32)
    to_entries[:] = 0
    to_bias[:] = 0
    for first in range(0, len(x), TILE):
        read_tile(grad, first, outputs)
        if to_x.size:
            multiply_tile(outputs, across, no_bias, sums, to_x, first)
        read_tile(x, first, inputs)
        for row in range(len(outputs)):
            channel = load_vectors(outputs, TILE * row, VECTORS)
            end = starts[row + 1]
            whole_end = end - (end - starts[row]) % 4
            for entry in range(starts[row], whole_end, 4):
                a, b = TILE * columns[entry], TILE * columns[entry + 1]
                c, d = TILE * columns[entry + 2], TILE * columns[entry + 3]
                add_four_products(channel, inputs, a, b, c, d, to_entries, entry)
            for entry in range(whole_end, end):
                to_entries[entry] += product_of_all(channel, inputs, TILE * columns[entry])
        for row in range(len(to_bias)):
            to_bias[row] += sum_of_all(load_vectors(outputs, TILE * row, VECTORS))
