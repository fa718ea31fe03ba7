"""The gradient of a weight where one operand has few nonzero entries: cost follows these.

The gradient is the sum over tokens of an outer product, of the input and of the output's gradient.
After AbsTopK three quarters of an input are 0, and before it three quarters of a gradient. In tiles
of tokens the nonzero entries of each sparse channel are listed. Each entry then adds a multiple of
the other operand's row to a row of the result, which stays in registers.

Shapes: T tokens, C sparse channels, N dense channels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.tiles import TILE, VECTORS, Floats, aligned_tile
from wirework.nn.kernels.compiled.vectors import add_multiple, load_vectors, store_vectors

Bytes = NDArray[np.uint8]
Counts = NDArray[np.signedinteger[Any]]

COLUMNS = TILE
"""Columns of the result that are computed at once."""


@compiled
def add_outer_products(
    sparse: Floats, dense: Floats, first_column: int, end_column: int, out: Floats
) -> None:
    """Fill columns of `out` with those of `sparse.T @ dense`.

    Each sum is in the order of the tokens, whichever columns are computed together.

    Args:
        sparse: (T, C).
        dense: (T, N); N is a multiple of `COLUMNS`.
        first_column: first column to fill, a multiple of `COLUMNS`.
        end_column: column after the last one.
        out: (C, N).
    """
    n_tokens, n_channels = sparse.shape
    width = dense.shape[1]
    tokens = np.empty((n_channels, TILE + 1), np.uint8)
    values = np.empty((n_channels, TILE + 1), np.float32)
    counts = np.empty(n_channels, np.int32)
    tile = aligned_tile(TILE)
    out[:, first_column:end_column] = 0
    for first in range(0, n_tokens, TILE):
        n = min(TILE, n_tokens - first)
        _list_entries(sparse, first, n, tokens, values, counts)
        for column in range(first_column, end_column, COLUMNS):
            for token in range(n):
                row = load_vectors(dense, (first + token) * width + column, VECTORS)
                store_vectors(tile, COLUMNS * token, row)
            for channel in range(n_channels):
                total = load_vectors(out, channel * width + column, VECTORS)
                for i in range(counts[channel]):
                    place = COLUMNS * np.int64(tokens[channel, i])
                    total = add_multiple(total, values[channel, i], tile, place)
                store_vectors(out, channel * width + column, total)


@compiled
def _list_entries(
    sparse: Floats, first: int, n: int, tokens: Bytes, values: Floats, counts: Counts
) -> None:
    """List the nonzero entries of each channel in n tokens: token, value and how many.

    Every entry is written, and the next one overwrites it if it is 0: a branch on each would take
    longer. So the lists have room for one entry more.
    """
    counts[:] = 0
    for token in range(n):
        row = sparse[first + token]
        for channel in range(len(row)):
            count = counts[channel]
            tokens[channel, count] = np.uint8(token)
            values[channel, count] = row[channel]
            counts[channel] = count + np.int32(row[channel] != 0)
