"""The k entries of largest magnitude of each row, by bisection over the bits of the magnitudes.

The bits of a float without its sign, read as an integer, are ordered like its magnitude: they are
its key. The threshold of a row is the largest key that k or more entries reach. The upper 16 bits
of the threshold are found by counts over the row in 16-bit integers, of which one instruction
compares 16 or 32; the lower bits by counts over the few entries with the same upper bits.

Shapes: R rows, N entries a row.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled

Integer = np.signedinteger[Any]
Bits = NDArray[Integer]
Bytes = NDArray[np.uint8]
Upper = NDArray[np.int16]

_COUNTED = 1 << 14  # entries of which a count fits in 16 bits
# Eight bytes of 0 or 1 in an integer, times _GATHER, have these eight bits as their highest byte.
_GATHER = np.uint64(0x0102040810204080)
# A byte times _SPREAD is eight copies of it; each copy keeps a bit of its own in _OWN_BIT.
_SPREAD, _OWN_BIT = np.uint64(0x0101010101010101), np.uint64(0x8040201008040201)


@compiled
def select_rows(
    bits: Bits,
    stride: int,
    k: int,
    magnitude: Integer,
    infinity: Integer,
    out: Bits,
    mask: Bytes,
) -> bool:
    """Fill `out` and `mask` with the k entries of largest magnitude of each row.

    Args:
        bits: bits of floats, as signed integers of 16, 32 or 64 bits; N of a row follow each other.
        stride: distance of two rows in `bits`.
        k: 1 <= k < N. Ties go to the lower index.
        magnitude: all bits but the sign, in the type of `bits`.
        infinity: bits of infinity in that type; larger keys are NaN.
        out: (R, N) to be filled with the bits of kept entries, and 0.
        mask: (R, ceil(N / 8)) to be filled with a bit for each entry, the first one the lowest.

    Returns:
        Whether a row has a NaN; the later rows are then not filled.
    """
    width = out.shape[1]
    keys = np.empty_like(out[0])
    upper = np.empty(width, np.int16)
    low = np.empty(width, np.int64)
    chosen = np.zeros(8 * mask.shape[1], np.uint8)
    for row in range(len(out)):
        entries = bits[row * stride : row * stride + width]
        largest = _keys(entries, magnitude, keys, upper)
        if largest > infinity:
            return True
        n_nonzero = _count_nonzero(keys)
        if n_nonzero <= k:
            _choose(entries, keys, 1, out[row], chosen)
            _add_first_zeros(entries, keys, k - n_nonzero, out[row], chosen)
            _pack(chosen, mask[row])
            continue
        threshold, n_reached = find_threshold(keys, upper, low, k, largest)
        _choose(entries, keys, threshold, out[row], chosen)
        if n_reached > k:
            _drop_last_ties(keys, threshold, n_reached - k, out[row], chosen)
        _pack(chosen, mask[row])
    return False


@compiled
def pass_rows(bits: Bits, mask: Bytes, out: Bits) -> None:
    """Fill `out` with the entries of `bits` whose bit in `mask` is 1, and 0.

    Args:
        bits: (R, N), signed integers of any width.
        mask: (R, ceil(N / 8)), as `select_rows` writes it.
        out: (R, N) to be filled.
    """
    chosen = np.empty(8 * mask.shape[1], np.uint8)
    eights = chosen.view(np.uint64)
    for row in range(len(bits)):
        packed, entries, passed = mask[row], bits[row], out[row]
        for i in range(len(eights)):
            eights[i] = np.uint64(packed[i]) * _SPREAD & _OWN_BIT
        for i in range(len(entries)):
            passed[i] = entries[i] if chosen[i] != 0 else 0


@compiled
def _keys(entries: Bits, magnitude: Integer, keys: Bits, upper: Upper) -> int:
    """Fill in the keys and their upper 16 bits; return the largest key."""
    for i in range(len(entries)):
        keys[i] = entries[i] & magnitude
    largest = keys[0]
    for i in range(len(entries)):
        upper[i] = keys[i] >> (8 * keys.itemsize - 16)
        largest = max(largest, keys[i])
    return largest


@compiled
def _count_nonzero(keys: Bits) -> int:
    """Return how many keys are not 0: in sparse models often fewer than k."""
    count = np.int32(0)
    for i in range(len(keys)):
        count += np.int32(keys[i] != 0)
    return count


@compiled
def find_threshold(
    keys: Bits, upper: Upper, low: NDArray[np.int64], k: int, largest: int
) -> tuple[int, int]:
    """Return the k-th largest key of a row, and how many keys reach it: k, or more with ties.

    The search ends early at a smaller threshold that exactly k keys reach.
    """
    shift = 8 * keys.itemsize - 16
    threshold, n_reached = _upper_threshold(upper, k, largest >> shift)
    if shift == 0 or n_reached == k:
        return threshold << shift, n_reached
    n_same = 0
    for i in range(len(upper)):
        if upper[i] == threshold:
            low[n_same] = keys[i] & ((np.int64(1) << shift) - 1)
            n_same += 1
    n_above = n_reached - n_same
    lower, n_low = _low_threshold(low[:n_same], k - n_above, shift)
    return (threshold << shift) | lower, n_above + n_low


@compiled
def _upper_threshold(upper: Upper, k: int, largest: int) -> tuple[int, int]:
    """Bisect for the largest threshold of upper bits that k or more entries reach."""
    lowest, n_reached = np.int64(0), len(upper)
    while lowest < largest and n_reached > k:
        middle = (lowest + largest + 1) >> 1
        count = _count(upper, np.int16(middle))
        if count >= k:
            lowest, n_reached = middle, count
        else:
            largest = middle - 1
    return lowest, n_reached


@compiled
def _count(upper: Upper, threshold: int) -> int:
    """Return how many entries reach the threshold; counted in 16 bits, which is fastest."""
    total = 0
    for start in range(0, len(upper), _COUNTED):
        part = upper[start : start + _COUNTED]
        count = np.int16(0)
        for i in range(len(part)):
            count = np.int16(count + np.int16(part[i] >= threshold))
        total += count
    return total


@compiled
def _low_threshold(low: NDArray[np.int64], k: int, n_bits: int) -> tuple[int, int]:
    """Bisect for the largest threshold of the lower bits that k or more entries reach."""
    lowest, largest, n_reached = np.int64(0), (np.int64(1) << n_bits) - 1, len(low)
    while lowest < largest and n_reached > k:
        middle = lowest + ((largest - lowest + 1) >> 1)
        count = 0
        for i in range(len(low)):
            count += low[i] >= middle
        if count >= k:
            lowest, n_reached = middle, count
        else:
            largest = middle - 1
    return lowest, n_reached


@compiled
def _choose(entries: Bits, keys: Bits, threshold: int, out: Bits, chosen: Bytes) -> None:
    """Keep the entries whose keys reach the threshold."""
    one_key = keys[:1].copy()
    one_key[0] = threshold
    least = one_key[0]  # in the type of the keys, so that one instruction compares many
    for i in range(len(entries)):
        out[i] = entries[i] if keys[i] >= least else 0
    for i in range(len(entries)):
        chosen[i] = keys[i] >= least


@compiled
def _add_first_zeros(entries: Bits, keys: Bits, n: int, out: Bits, chosen: Bytes) -> None:
    """Keep the first n entries whose keys are 0."""
    i = 0
    while n:
        if keys[i] == 0:
            out[i], chosen[i] = entries[i], 1
            n -= 1
        i += 1


@compiled
def _drop_last_ties(keys: Bits, threshold: int, n_surplus: int, out: Bits, chosen: Bytes) -> None:
    """Drop the last entries whose keys equal the threshold."""
    i = len(keys)
    while n_surplus:
        i -= 1
        if keys[i] == threshold:
            out[i], chosen[i] = 0, 0
            n_surplus -= 1


@compiled
def _pack(chosen: Bytes, packed: Bytes) -> None:
    """Pack eight bytes of 0 or 1 into each byte."""
    eights = chosen.view(np.uint64)
    for i in range(len(eights)):
        packed[i] = np.uint8((eights[i] * _GATHER) >> np.uint64(56))
