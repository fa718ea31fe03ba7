"""Tiles: 64 tokens of a matrix, transposed so that the tokens of one channel are adjacent.

A tile stays in cache while a kernel works on it.

Shapes: T tokens, C channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import count, transpose_block

Floats = NDArray[np.float32]

TILE = 64
"""Tokens of a tile."""
VECTORS = count(TILE // LANES)
"""Registers that hold a channel of a tile, for the compiler."""
# Sides of the blocks that are transposed in registers, of which AVX-512 has twice as many. Blocks
# are read fastest with a side of 8 on both.
_READ = count(8)
_WRITTEN = count(16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8)


@compiled
def aligned_tile(n_rows: int) -> Floats:
    """Return an uninitialised (R, TILE) matrix that begins with a cache line.

    A vector that lies in two lines takes twice as long to load.
    """
    room = np.empty(n_rows * TILE + LANES, np.float32)
    skipped = -(room.ctypes.data >> 2) % LANES
    return room[skipped : skipped + n_rows * TILE].reshape(n_rows, TILE)


@compiled
def read_tile(matrix: Floats, first: int, tile: Floats) -> None:
    """Fill the channels of a tile, (C, TILE), with the tokens of (T, C) from `first`, and zeros."""
    width, side = matrix.shape[1], len(_READ)
    n = min(TILE, len(matrix) - first)
    whole_n, whole_width = n - n % side, width - width % side
    for token in range(0, whole_n, side):
        place = (first + token) * width
        for channel in range(0, whole_width, side):
            transpose_block(
                _READ, matrix, place + channel, width, tile, TILE * channel + token, TILE
            )
    for token in range(n):
        for channel in range(whole_width if token < whole_n else 0, width):
            tile[channel, token] = matrix[first + token, channel]
    if n < TILE:
        tile[:, n:] = 0


@compiled
def write_tile(tile: Floats, n_channels: int, n: int, out: Floats, first: int, start: int) -> None:
    """Write the first channels and tokens of a tile to (T, C), from token `first`, channel `start`.

    The matrix is passed whole, since the rows of a part do not follow each other.
    """
    width, side = out.shape[1], len(_WRITTEN)
    whole_n, whole_width = n - n % side, n_channels - n_channels % side
    for token in range(0, whole_n, side):
        place = (first + token) * width + start
        for channel in range(0, whole_width, side):
            transpose_block(
                _WRITTEN, tile, TILE * channel + token, TILE, out, place + channel, width
            )
    for token in range(n):
        for channel in range(whole_width if token < whole_n else 0, n_channels):
            out[first + token, start + channel] = tile[channel, token]
