"""Entries whose bit in a mask of bits is 1.

Shapes: N entries of a row, k of them kept.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.lane_masks import lowest_bit, word_at

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_WORD = 8  # bytes


@compiled
def gather_kept(mask: Bytes, entries: Floats, kept: Floats) -> None:
    """Fill `kept` with the entries whose bit in the mask is 1, by index.

    Args:
        mask: (ceil(N / 8),), a bit for each entry, the first one the lowest; k bits are 1.
        entries: (N,).
        kept: (k,) to be filled.
    """
    n = np.uint64(0)
    whole = len(mask) - len(mask) % _WORD
    for i in range(0, whole, _WORD):
        word = word_at(mask, i)
        start = np.uint64(8 * i)
        while word:
            kept[n] = entries[start + lowest_bit(word)]
            word &= word - np.uint64(1)
            n += np.uint64(1)
    for i in range(8 * whole, len(entries)):
        if mask[i >> 3] >> (i & 7) & 1:
            kept[n] = entries[i]
            n += np.uint64(1)


@compiled
def scatter_products(mask: Bytes, entries: Floats, factors: Floats, out: Floats) -> None:
    """Fill `out` with entries whose bit in the mask is 1, times their factors, and 0.

    Args:
        mask: (ceil(N / 8),), as for `gather_kept`.
        entries: (N,).
        factors: (k,), by index of the entries.
        out: (N,) to be filled.
    """
    n = np.uint64(0)
    out[:] = 0
    whole = len(mask) - len(mask) % _WORD
    for i in range(0, whole, _WORD):
        word = word_at(mask, i)
        start = np.uint64(8 * i)
        while word:
            place = start + lowest_bit(word)
            out[place] = entries[place] * factors[n]
            word &= word - np.uint64(1)
            n += np.uint64(1)
    for i in range(8 * whole, len(entries)):
        if mask[i >> 3] >> (i & 7) & 1:
            out[i] = entries[i] * factors[n]
            n += np.uint64(1)
