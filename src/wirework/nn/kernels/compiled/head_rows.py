"""The rows of one head in memory that stays in cache, and sums over them, for attention kernels.

Arrays of all heads are flat; `strides` has a row for each: the distances of sequences, heads and
tokens. The K channels of a token are adjacent. The rows of a head follow each other, with rows of
zeros up to a multiple of 16.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import (
    add_multiples,
    columns_of_rows,
    copy_row,
    fetch_early,
    load,
    load_vectors,
    rows_of_columns,
    store_vectors,
    sums,
    zeros,
)

Floats = NDArray[np.float32]
Strides = NDArray[np.int64]
Count = tuple[int, ...]
Vector = Floats
"""16 numbers in a register."""
Vectors = tuple[Vector, ...]

_TOGETHER = 32  # terms of a sum that are added up apart, so that rounding errors grow more slowly


@compiled
def start_of(strides: Strides, array: int, head: int, n_heads: int) -> int:
    """Return the place of the first row of a head; heads are counted through all sequences."""
    return head // n_heads * strides[array, 0] + head % n_heads * strides[array, 1]


@compiled
def read_rows(
    channels: Count, x: Floats, strides: Strides, array: int, head: int, n_heads: int, rows: Floats,
    length: int,
) -> None:  # fmt: skip
    """Copy the rows of a head; the next head's are moved to the cache on the way."""
    start, step = start_of(strides, array, head, n_heads), strides[array, 2]
    for i in range(length):
        copy_row(channels, x, start + i * step, rows, i * len(channels))
        fetch_early(x, start + i * step + len(channels))


@compiled
def write_rows(
    channels: Count, rows: Floats, x: Floats, strides: Strides, array: int, head: int, n_heads: int,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Copy some rows of a head back."""
    start, step = start_of(strides, array, head, n_heads), strides[array, 2]
    for i in range(begin, end):
        copy_row(channels, rows, i * len(channels), x, start + i * step)
        fetch_early(x, start + i * step + len(channels))


@compiled
def load_columns(rows: Floats, first: int, channels: Count) -> Vectors:
    """Return the channels of 16 rows as vectors."""
    return columns_of_rows(load_vectors(rows, first * len(channels), channels))


@compiled
def store_columns(rows: Floats, first: int, columns: Vectors) -> None:
    """Write 16 rows from their channels."""
    store_vectors(rows, first * len(columns), rows_of_columns(columns))


@compiled
def add_products(
    weights: Floats, first_weight: int, rows: Floats, first_row: int, n: int,
    channels: Count, group: Count, total: Floats, place: int,
) -> None:  # fmt: skip
    """Add the sum of n vectors of weights times the channels of n rows to `total`.

    Args:
        weights: vectors.
        first_weight: number of the first vector.
        rows: rows of a head.
        first_row: number of the first row.
        n: number of terms.
        channels: `count` of the channels.
        group: `count` of the channels that are summed at once, in registers.
        total: has a vector for each channel from `place`.
        place: index in `total`.
    """
    width = len(channels)
    for start in range(0, n, _TOGETHER):
        end = min(n, start + _TOGETHER)
        for channel in range(0, width, len(group)):
            part = zeros(group)
            for i in range(start, end):
                weight = load(weights, (first_weight + i) * LANES)
                part = add_multiples(part, weight, rows, (first_row + i) * width + channel)
            before = load_vectors(total, place + channel * LANES, group)
            store_vectors(total, place + channel * LANES, sums(before, part))
