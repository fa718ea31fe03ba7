"""Chosen entries of each row where they are among the k of largest magnitude, without a selection.

An entry is among them if fewer than k entries are larger, or equal and before it. For a few entries
a count over the row is faster than finding all k.

Shapes: R rows, N entries a row, M chosen ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled_with_any_order

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@compiled_with_any_order
def keep_members(x: Floats, k: int, chosen: Ints, out: Floats, kept: Mask) -> bool:
    """Fill `out` with the chosen entries of each row, or 0 if k others come before them.

    Args:
        x: (R, N) float32 or float64.
        k: 1 <= k <= N. Ties go to the lower index.
        chosen: (M,) indices from 0 to N - 1.
        out: (R, M) of the type of `x`, to be filled.
        kept: (R, M) to be filled with whether the entry is among the k.

    Returns:
        Whether a row has a NaN; the later rows are then not filled.
    """
    width = x.shape[1]
    magnitudes = np.empty_like(x[0])
    one, zero = magnitudes.dtype.type(1), magnitudes.dtype.type(0)
    for row in range(len(x)):
        entries = x[row]
        n_nan = zero
        for i in range(width):
            magnitudes[i] = abs(entries[i])
            n_nan += one if magnitudes[i] != magnitudes[i] else zero
        if n_nan > zero:
            return True
        for i in range(len(chosen)):
            own = chosen[i]
            limit = magnitudes[own]
            larger = zero  # counted in floats, of the width that is compared
            equal = zero
            for j in range(width):
                larger += one if magnitudes[j] > limit else zero
                equal += one if magnitudes[j] == limit else zero
            is_kept = larger + equal <= k
            if larger < k < larger + equal:
                for j in range(own):
                    larger += one if magnitudes[j] == limit else zero
                is_kept = larger < k
            kept[row, i] = is_kept
            out[row, i] = entries[own] if is_kept else zero
    return False
