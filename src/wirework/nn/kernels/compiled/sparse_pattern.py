"""Sums over the entries of a sparse pattern, which are listed token by token.

Shapes: N tokens, U units, S entries, D channels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import load, repeat, store

Floats = NDArray[np.float32]
Numbers = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@compiled
def sum_by_token(starts: Ints, values: Numbers, out: Numbers) -> None:
    """Fill `out` with the sum of each token's values.

    Args:
        starts: (N + 1,) place of each token's first entry, and S.
        values: (S,) float32 or float64.
        out: (N,) of that type, to be filled.
    """
    for token in range(len(out)):
        total = values.dtype.type(0)
        for entry in range(starts[token], starts[token + 1]):
            total += values[entry]
        out[token] = total


@compiled
def sum_rows_by_unit(
    starts: Ints, units: Ints, values: Floats, x: Floats, width: int, begin: int, end: int,
    out: Floats,
) -> None:  # fmt: skip
    """Fill some channels of `out` with the sum of each unit's rows of `x`, times their values.

    The sums are in the order of the tokens. Rows of `out` should fit in the cache.

    Args:
        starts: (N + 1,) as in `sum_by_token`.
        units: (S,).
        values: (S,).
        x: (N D,) rows one after another.
        width: D.
        begin, end: the channels, multiples of 16.
        out: (U D,) rows one after another.
    """
    for row in range(0, len(out), width):
        out[row + begin : row + end] = 0
    for token in range(len(starts) - 1):
        for entry in range(starts[token], starts[token + 1]):
            row, value = units[entry] * width, repeat(values[entry])
            for i in range(begin, end, LANES):
                store(out, row + i, load(out, row + i) + value * load(x, token * width + i))
