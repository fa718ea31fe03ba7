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
from wirework.nn.kernels.compiled.lane_masks import copy_chosen, copy_large, mask_of_equal
from wirework.nn.kernels.compiled.vector_type import LANES

Integer = np.signedinteger[Any]
Bits = NDArray[Integer]
Bytes = NDArray[np.uint8]
Upper = NDArray[np.int16]

NO_GUESS, HAS_NAN = -1, -2  # in place of a threshold's upper bits
_COUNTED = 1 << 14  # entries of which a count fits in 16 bits
_FIRST_STEP = 4  # from the guessed threshold of a row to the next one that is tried


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
    upper = np.empty(width, np.int16)
    low = np.empty(width, np.int64)
    guess = NO_GUESS
    for row in range(len(out)):
        entries = bits[row * stride : row * stride + width]
        guess = select_row(entries, k, magnitude, infinity, upper, low, guess, out[row], mask[row])
        if guess == HAS_NAN:
            return True
    return False


@compiled
def select_row(
    entries: Bits,
    k: int,
    magnitude: Integer,
    infinity: Integer,
    upper: Upper,
    low: NDArray[np.int64],
    guess: int,
    out: Bits,
    mask: Bytes,
) -> int:
    """Fill `out` and `mask` with the k entries of largest magnitude of one row.

    Args:
        entries: (N,) bits of floats, as in `select_rows`.
        k, magnitude, infinity: as in `select_rows`.
        upper: (N,) memory for the search.
        low: (N,) memory for the search.
        guess: upper bits of the threshold, near those of the rows before, or `NO_GUESS`.
        out: (N,) to be filled; may be `entries`.
        mask: (ceil(N / 8),) to be filled.

    Returns:
        The guess for the next row, or `HAS_NAN`.
    """
    largest = _upper_bits(entries, magnitude, upper)
    if largest > infinity:
        return HAS_NAN
    n_nonzero = _count_nonzero(entries, magnitude, upper, k)
    if n_nonzero <= k:
        _copy_large(entries, magnitude, 1, out, mask)
        _add_first_zeros(entries, magnitude, k - n_nonzero, out, mask)
        return guess
    threshold, n_reached = find_threshold(entries, upper, low, k, largest, guess)
    _copy_large(entries, magnitude, threshold, out, mask)
    if n_reached > k:
        _drop_last_ties(magnitude, threshold, n_reached - k, out, mask)
    found = threshold >> (8 * entries.itemsize - 16)
    return found if guess == NO_GUESS else (3 * guess + found + 2) >> 2


@compiled
def pass_rows(bits: Bits, mask: Bytes, out: Bits) -> None:
    """Fill `out` with the entries of `bits` whose bit in `mask` is 1, and 0.

    Args:
        bits: (R, N), signed integers of any width.
        mask: (R, ceil(N / 8)), as `select_rows` writes it.
        out: (R, N) to be filled.
    """
    for row in range(len(bits)):
        packed, entries, passed = mask[row], bits[row], out[row]
        whole = len(entries) - len(entries) % LANES
        for i in range(0, whole, LANES):
            copy_chosen(packed, entries, i, passed)
        for i in range(whole, len(entries)):
            passed[i] = entries[i] if packed[i >> 3] >> (i & 7) & 1 else 0


@compiled
def _upper_bits(entries: Bits, magnitude: Integer, upper: Upper) -> int:
    """Fill in the upper 16 bits of the keys; return the largest key."""
    largest = entries[0] & magnitude
    for i in range(len(entries)):
        key = entries[i] & magnitude
        upper[i] = key >> (8 * entries.itemsize - 16)
        largest = max(largest, key)
    return largest


@compiled
def _count_nonzero(entries: Bits, magnitude: Integer, upper: Upper, k: int) -> int:
    """Return how many keys are not 0, or a smaller number above k if there are more than k.

    In sparse models there are often fewer than k.
    """
    count = _count(upper, np.int16(1))
    if count > k:
        return count
    nonzero = np.int32(0)
    for i in range(len(entries)):
        nonzero += np.int32(entries[i] & magnitude != 0)
    return nonzero


@compiled
def find_threshold(
    entries: Bits, upper: Upper, low: NDArray[np.int64], k: int, largest: int, guess: int
) -> tuple[int, int]:
    """Return the k-th largest key of a row, and how many keys reach it: k, or more with ties.

    The search ends early at a smaller threshold that exactly k keys reach. A negative guess of the
    upper bits is none.
    """
    shift = 8 * entries.itemsize - 16
    threshold, n_reached = _upper_threshold(upper, k, largest >> shift, guess)
    if shift == 0 or n_reached == k:
        return threshold << shift, n_reached
    n_same = _lower_bits(entries, upper, threshold, (np.int64(1) << shift) - 1, low)
    n_above = n_reached - n_same
    lower, n_low = _low_threshold(low[:n_same], k - n_above, shift)
    return (threshold << shift) | lower, n_above + n_low


@compiled
def _upper_threshold(upper: Upper, k: int, largest: int, guess: int) -> tuple[int, int]:
    """Search for the largest threshold of upper bits that k or more entries reach.

    From the guess the steps double until the threshold lies between two tried ones. Then, or if the
    guess is negative, by bisection.
    """
    lowest, n_reached = np.int64(0), len(upper)
    is_above = is_below = guess < 0
    tried, step = np.int64(min(guess, largest)), np.int64(_FIRST_STEP)
    while lowest < largest and n_reached > k:
        if is_above and is_below:
            tried = (lowest + largest + 1) >> 1
        count = _count(upper, np.int16(tried))
        if count >= k:
            lowest, n_reached, is_below = tried, count, True
            tried = min(lowest + step, largest)
        else:
            largest, is_above = tried - 1, True
            tried = max(largest - step, lowest + 1)
        step *= 2
    return lowest, n_reached


@compiled
def _lower_bits(
    entries: Bits, upper: Upper, threshold: int, lower: int, low: NDArray[np.int64]
) -> int:
    """List the lower bits of the keys whose upper bits equal the threshold; return how many."""
    n = 0
    whole = len(upper) - len(upper) % LANES
    for start in range(0, whole, LANES):
        same = mask_of_equal(upper, start, np.int16(threshold))
        if same:
            for i in range(start, start + LANES):
                if same >> (i - start) & 1:
                    low[n] = entries[i] & lower
                    n += 1
    for i in range(whole, len(upper)):
        if upper[i] == threshold:
            low[n] = entries[i] & lower
            n += 1
    return n


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
def _copy_large(entries: Bits, magnitude: Integer, least: int, out: Bits, mask: Bytes) -> None:
    """Copy the entries whose keys reach `least`, or 0, and fill in the mask."""
    first = out[0]
    out[0] = least
    threshold = out[0]  # in the type of the keys
    out[0] = first  # `out` may be `entries`
    whole = len(entries) - len(entries) % LANES
    for i in range(0, whole, LANES):
        copy_large(entries, i, magnitude, threshold, out, mask)
    mask[whole >> 3 :] = 0
    for i in range(whole, len(entries)):
        is_large = entries[i] & magnitude >= threshold
        out[i] = entries[i] if is_large else 0
        mask[i >> 3] |= np.uint8(is_large) << (i & 7)


@compiled
def _add_first_zeros(entries: Bits, magnitude: Integer, n: int, out: Bits, mask: Bytes) -> None:
    """Keep the first n entries whose keys are 0."""
    i = 0
    while n:
        if entries[i] & magnitude == 0:
            out[i] = entries[i]
            mask[i >> 3] |= np.uint8(1) << (i & 7)
            n -= 1
        i += 1


@compiled
def _drop_last_ties(
    magnitude: Integer, threshold: int, n_surplus: int, out: Bits, mask: Bytes
) -> None:
    """Drop the last kept entries whose keys equal the threshold, which is not 0."""
    i = len(out)
    while n_surplus:
        i -= 1
        if out[i] & magnitude == threshold:
            out[i] = 0
            mask[i >> 3] &= ~(np.uint8(1) << (i & 7))
            n_surplus -= 1
