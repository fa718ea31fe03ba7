"""The k highest scores of each row and those close behind, by searches over thresholds.

A count over a row tells how many entries reach a threshold. The search for one that exactly k + 1
entries reach starts from those of the rows before, and takes a few counts.

Shapes: N rows, U scores a row, S listed scores.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.lane_masks import lowest_bit, mask_of_reaching
from wirework.nn.kernels.compiled.vector_type import LANES

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_TRIES = 40  # counts of a search, which takes 4 if no scores are equal
_SHARE = 1 / 4  # of the newest row in the averages that a search starts from


@compiled
def find_borders(scores: Floats, k: int, inside: Floats, outside: Floats) -> None:
    """Fill in the k-th and the (k+1)-th highest score of each row.

    Both are NaN where the search fails: in a row with a NaN, and in most with equal scores there.

    Args:
        scores: (N, U) float32 or float64.
        k: 1 <= k < U.
        inside, outside: (N,) of the type of the scores, to be filled.
    """
    places = np.empty(k + 2, np.int64)
    kind = scores.dtype.type
    guess, step, share = kind(0), kind(1), kind(_SHARE)
    for row in range(len(scores)):
        entries = scores[row]
        inside[row] = outside[row] = np.nan
        threshold = _threshold(entries, k + 1, guess, step)
        if _count_nan(entries) or threshold != threshold:
            continue
        _list_reaching(entries, threshold, places, 0)
        lowest = second = kind(np.inf)
        for i in range(k + 1):
            score = entries[places[i]]
            if score < lowest:
                lowest, second = score, lowest
            elif score < second:
                second = score
        inside[row], outside[row] = second, lowest
        guess += share * (threshold - guess)
        if 0 < second - lowest < np.inf:  # equal scores say nothing about other rows
            step += share * (second - lowest - step)


@compiled
def list_entries(
    keys: Floats, scores: Floats, lowest: Floats, inside: Floats, outside: Floats,
    tokens: Ints, units: Ints, listed: Floats, is_winner: Mask, border: Ints,
) -> int:  # fmt: skip
    """List the entries of each row whose keys reach its lowest one; return how many there are.

    Args:
        keys: (N, U), the scores, or their ranks.
        scores: (N, U).
        lowest: (N,), at most `outside`.
        inside, outside: (N,) k-th and (k+1)-th highest key of each row, which differ.
        tokens, units: (S + 1,), or more, to be filled with rows and columns.
        listed: as `tokens`, to be filled with the scores.
        is_winner: as `tokens`, to be filled with whether the key reaches `inside`.
        border: (N, 2) to be filled with the places in the list of the first key that equals
            `inside` and of the first one that equals `outside`.
    """
    n = 0
    for row in range(len(keys)):
        entries = keys[row]
        end = _list_reaching(entries, lowest[row], units, n)
        for place in range(end - 1, n - 1, -1):
            key = entries[units[place]]
            tokens[place], listed[place] = row, scores[row, units[place]]
            is_winner[place] = key >= inside[row]
            if key == inside[row]:
                border[row, 0] = place
            elif key == outside[row]:
                border[row, 1] = place
        n = end
    return n


@compiled
def _threshold(entries: Floats, n_wanted: int, tried: float, step: float) -> float:
    """Return a threshold that exactly so many entries reach, or NaN if none is found.

    From the first one that is tried, steps double until the threshold lies between two tried ones.
    Then by bisection.
    """
    kind = entries.dtype.type
    low, high, half = kind(-np.inf), kind(np.inf), kind(0.5)
    for _ in range(_TRIES):
        n = _count_reaching(entries, tried)
        if n == n_wanted:
            return tried
        if n > n_wanted:
            low = tried
        else:
            high = tried
        if low == -np.inf:
            tried = high - step
        elif high == np.inf:
            tried = low + step
        else:
            tried = low + (high - low) * half
        step += step
    return kind(np.nan)


@compiled
def _count_reaching(entries: Floats, threshold: float) -> int:
    n = np.int32(0)
    for i in range(len(entries)):
        n += np.int32(entries[i] >= threshold)
    return n


@compiled
def _count_nan(entries: Floats) -> int:
    n = np.int32(0)
    for i in range(len(entries)):
        n += np.int32(entries[i] != entries[i])
    return n


@compiled
def _list_reaching(entries: Floats, threshold: float, places: Ints, n: int) -> int:
    """List the places of entries that reach a threshold, from index n; return the end of the list.

    There must be room for one more.
    """
    whole = len(entries) - len(entries) % LANES
    for start in range(0, whole, LANES):
        reached = mask_of_reaching(entries, start, threshold)
        while reached:
            places[n] = start + lowest_bit(reached)
            n += 1
            reached &= reached - 1  # without its lowest bit
    for i in range(whole, len(entries)):
        places[n] = i
        n += np.int64(entries[i] >= threshold)
    return n
