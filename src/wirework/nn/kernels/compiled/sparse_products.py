"""Products with a sparse matrix: cost follows its nonzero entries and the sizes of both sides.

The matrix is in compressed rows (CSR). Tokens are processed in transposed tiles (`tiles.py`). An
entry of the matrix adds a multiple of one channel to another, for all tokens of the tile at once.

Shapes: T tokens, D inputs, M outputs, E nonzero entries.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.lane_masks import any_nonzero
from wirework.nn.kernels.compiled.tiles import TILE, VECTORS, aligned_tile, read_tile, write_tile
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import add_multiple, repeat_vectors, store_vectors

Floats = NDArray[np.float32]
Ints = NDArray[np.signedinteger[Any]]

OUTPUTS = 64
"""Outputs of a tile that are transposed back at once."""


@compiled
def multiply_rows(
    x: Floats, starts: Ints, columns: Ints, values: Floats, bias: Floats, out: Floats
) -> None:
    """Fill `out` with `x @ w.T + bias` for a sparse matrix `w`, (M, D).

    The sum of each output is in the order of its entries, whatever the number of tokens.

    Args:
        x: (T, D).
        starts: (M + 1,) index of the first entry of each row of `w`, and E.
        columns: (E,) input channel of each entry, ascending within a row.
        values: (E,) the entries.
        bias: (M,).
        out: (T, M) to be filled.
    """
    tile, sums = aligned_tile(x.shape[1]), aligned_tile(OUTPUTS)
    for first in range(0, len(x), TILE):
        read_tile(x, first, tile)
        multiply_tile(tile, (starts, columns, values), bias, sums, out, first)


@compiled
def multiply_tile(
    tile: Floats,
    rows: tuple[Ints, Ints, Floats],
    bias: Floats,
    sums: Floats,
    out: Floats,
    first: int,
) -> None:
    """Fill the rows of `out` from `first` with the product of the tokens of a tile.

    Args:
        tile: (D, TILE), transposed tokens.
        rows: starts, columns and values of `w`, as in `multiply_rows`.
        bias: (M,).
        sums: (64, TILE) memory to work in.
        out: (T, M), of which as many rows are filled as there are, up to TILE.
        first: row of the tile's first token.
    """
    starts, columns, values = rows
    n_outputs, n_in_tile = len(starts) - 1, min(TILE, len(out) - first)
    for output in range(0, n_outputs, OUTPUTS):
        n = min(OUTPUTS, n_outputs - output)
        for i in range(n):
            total = repeat_vectors(bias[output + i], VECTORS)
            for entry in range(starts[output + i], starts[output + i + 1]):
                total = add_multiple(total, values[entry], tile, TILE * columns[entry])
            store_vectors(sums, TILE * i, total)
        write_tile(sums, n, n_in_tile, out, first, output)


@compiled
def count_entries(matrix: Floats, limit: int) -> int:
    """Return the number of nonzero entries of (M, D), or more than `limit` if there are more."""
    n = 0
    for row in range(len(matrix)):
        entries = matrix[row]
        count = np.int32(0)
        for i in range(len(entries)):
            count += np.int32(entries[i] != 0)
        n += count
        if n > limit:
            break
    return n


@compiled
def compress(matrix: Floats, starts: Ints, columns: Ints, values: Floats) -> None:
    """Fill in the compressed rows of (M, D); there is room for one entry more than it has.

    A zero is written too, and overwritten by the next entry: a branch on each would take longer.
    """
    n = 0
    for row in range(len(matrix)):
        starts[row] = n
        entries = matrix[row]
        whole = len(entries) - len(entries) % LANES
        for start in range(0, whole, LANES):
            if any_nonzero(entries, start):
                for i in range(start, start + LANES):
                    columns[n], values[n] = i, entries[i]
                    n += np.int64(entries[i] != 0)
        for i in range(whole, len(entries)):
            columns[n], values[n] = i, entries[i]
            n += np.int64(entries[i] != 0)
    starts[len(matrix)] = n


@compiled
def write_entries(starts: Ints, columns: Ints, values: Floats, matrix: Floats) -> None:
    """Write the entries of compressed rows into (M, D), and change no others."""
    for row in range(len(matrix)):
        for entry in range(starts[row], starts[row + 1]):
            matrix[row, columns[entry]] = values[entry]


@compiled
def drop_zeros(
    starts: Ints, columns: Ints, values: Floats, new_starts: Ints, new_columns: Ints, out: Floats
) -> None:
    """Copy the compressed rows of a matrix without entries that are 0."""
    n = 0
    for row in range(len(starts) - 1):
        new_starts[row] = n
        for entry in range(starts[row], starts[row + 1]):
            if values[entry] != 0:
                new_columns[n], out[n] = columns[entry], values[entry]
                n += 1
    new_starts[len(starts) - 1] = n


@compiled
def transpose_rows(
    starts: Ints, columns: Ints, values: Floats, t_starts: Ints, t_columns: Ints, t_values: Floats
) -> None:
    """Fill in the compressed rows of the transpose, (D, M), of a matrix in compressed rows."""
    t_starts[:] = 0
    for column in columns:
        t_starts[column + 1] += 1
    for i in range(1, len(t_starts)):
        t_starts[i] += t_starts[i - 1]
    place = t_starts[:-1].copy()
    for row in range(len(starts) - 1):
        for entry in range(starts[row], starts[row + 1]):
            column = columns[entry]
            t_columns[place[column]], t_values[place[column]] = row, values[entry]
            place[column] += 1


@compiled
def embedding_gradients(
    tokens: Ints, grad: Floats, starts: Ints, columns: Ints, out: Floats
) -> None:
    """Fill `out` with the gradient of each entry of an embedding, (V, D) in compressed rows.

    Args:
        tokens: (T,) row of each token.
        grad: (T, D) gradient of the embedded tokens.
        starts: (V + 1,) as in `multiply_rows`.
        columns: (E,) as in `multiply_rows`.
        out: (E,) to be filled.
    """
    out[:] = 0
    for i in range(len(tokens)):
        row = tokens[i]
        for entry in range(starts[row], starts[row + 1]):
            out[entry] += grad[i, columns[entry]]
