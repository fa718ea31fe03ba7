"""Passes of a projection over a weight matrix: entries near a threshold, and largest of neurons.

The bits of a float32 without its sign are ordered like its magnitude: they are its key. Passes
compare keys of many entries at once, and look closely only where one matters.

Shapes: R rows, C columns, G neurons (the rows or the columns).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.lane_masks import count_bits, lowest_bit, mask_of_large
from wirework.nn.kernels.compiled.vector_type import LANES

Keys = NDArray[np.int32]
Ints = NDArray[np.signedinteger[Any]]

_CHUNK = 64  # entries that are compared before one of them is looked at
_KEY = np.int32(0x7FFFFFFF)  # all bits but the sign
_INFINITY = 0x7F800000  # larger keys are NaN


@compiled
def scan_band(bits: Keys, low: int, high: int, floor_dim: int, counts: Ints, places: Ints) -> int:
    """Count the entries above a band of each neuron, and list the entries in it.

    Args:
        bits: (R, C) bits of float32.
        low, high: lowest and highest key of the band; a NaN's key counts as in it.
        floor_dim: 0 if rows are neurons, 1 if columns are, -1 for one count of all entries.
        counts: (G,) or (1,), zero; increased.
        places: to be filled with flat indices, ascending, as far as there is room.

    Returns:
        The number of entries in the band.
    """
    n_columns = bits.shape[1]
    whole = n_columns - n_columns % LANES
    lowest, above_band, nan = np.int32(low), np.int32(high + 1), np.int32(_INFINITY + 1)
    n_found = 0
    for row in range(len(bits)):
        entries = bits[row]
        n_above = np.int64(0)
        for start in range(0, whole, LANES):
            reaching = mask_of_large(entries, start, _KEY, lowest)
            if not reaching:
                continue
            above = mask_of_large(entries, start, _KEY, above_band)
            above &= ~mask_of_large(entries, start, _KEY, nan)
            n_above += count_bits(above)
            if floor_dim == 1 and above:
                for i in range(LANES):
                    counts[start + i] += above >> i & 1
            inside = reaching & ~above
            while inside:
                if n_found < len(places):
                    places[n_found] = row * n_columns + start + lowest_bit(inside)
                n_found += 1
                inside &= inside - 1  # without its lowest bit
        for i in range(whole, n_columns):
            key = entries[i] & _KEY
            is_above = above_band <= key < nan
            n_above += is_above
            if floor_dim == 1:
                counts[i] += is_above
            if key >= lowest and not is_above:
                if n_found < len(places):
                    places[n_found] = row * n_columns + i
                n_found += 1
        if floor_dim == 0:
            counts[row] = n_above
        elif floor_dim < 0:
            counts[0] += n_above
    return n_found


@compiled
def largest_of_rows(bits: Keys, rows: Ints, floor: int, places: Ints) -> None:
    """Find the entries of largest magnitude of some rows; the first of equals.

    Args:
        bits: (R, C) bits of float32 without NaN.
        rows: (S,) rows to search.
        floor: number of entries of each, at most C.
        places: (S, floor) to be filled with columns, largest first.
    """
    keys = np.empty(floor, np.int32)
    for s in range(len(rows)):
        entries, best = bits[rows[s]], places[s]
        keys[:] = -1
        for start in range(0, len(entries), _CHUNK):
            part = entries[start : start + _CHUNK]
            largest = np.int32(-1)
            for i in range(len(part)):
                largest = max(largest, part[i] & _KEY)
            if largest > keys[floor - 1]:
                for i in range(len(part)):
                    key = part[i] & _KEY
                    if key > keys[floor - 1]:
                        _insert(keys, best, key, start + i)


@compiled
def largest_of_columns(
    bits: Keys, is_searched: NDArray[np.bool_], floor: int, places: Ints
) -> None:
    """Find the entries of largest magnitude of some columns; the first of equals.

    Args:
        bits: (R, C) bits of float32 without NaN.
        is_searched: (C,) whether to search a column.
        floor: number of entries of each, at most R.
        places: (C, floor) to be filled with rows, largest first, in columns that are searched.
    """
    n_columns = bits.shape[1]
    keys = np.full((n_columns, floor), -1, np.int32)
    least = np.empty(n_columns, np.int32)  # the smallest of the largest keys so far
    for c in range(n_columns):
        least[c] = -1 if is_searched[c] else _KEY
    for row in range(len(bits)):
        entries = bits[row]
        for start in range(0, n_columns, _CHUNK):
            part, bounds = entries[start : start + _CHUNK], least[start : start + _CHUNK]
            n_larger = np.int32(0)
            for i in range(len(part)):
                n_larger += np.int32((part[i] & _KEY) > bounds[i])
            if n_larger:
                for i in range(len(part)):
                    key, c = part[i] & _KEY, start + i
                    if key > least[c]:
                        _insert(keys[c], places[c], key, row)
                        least[c] = keys[c, floor - 1]


@compiled
def _insert(keys: Keys, places: Ints, key: int, place: int) -> None:
    """Insert a key and its place in descending order, after equal keys; the last one drops out."""
    i = len(keys) - 1
    while i > 0 and keys[i - 1] < key:
        keys[i], places[i] = keys[i - 1], places[i - 1]
        i -= 1
    keys[i], places[i] = key, place
