"""Passes over a matrix that choose the candidates of live gradients: zero weights of largest score.

Scores are not negative, so their bits are ordered like their values. Their upper 16 bits are
counted first; then only entries with the upper bits of the threshold are left to rank.

Shapes: N weights.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled

Floats = NDArray[np.float32]
Bits = NDArray[np.int32]
Ints = NDArray[np.signedinteger[Any]]

_CHUNK = 64  # entries that are compared before one of them is looked at


@compiled
def count_scores(weight: Floats, scores: Bits, counts: Ints) -> None:
    """Count the scores of zero weights by their upper 16 bits.

    Args:
        weight: (N,).
        scores: (N,) bits of float32, not negative.
        counts: (32768,) zero; increased.
    """
    for i in range(len(weight)):
        if weight[i] == 0:
            counts[np.uint32(scores[i]) >> np.uint32(16)] += 1


@compiled
def mark_above(
    weight: Floats, scores: Bits, upper: int, marked: NDArray[np.bool_], places: Ints
) -> None:
    """Mark nonzero weights and those of larger scores, and list those with the same upper bits.

    Args:
        weight: (N,).
        scores: (N,) bits of float32, not negative.
        upper: upper 16 bits of a score.
        marked: (N,) to be filled: whether the weight is not 0 or its score's upper bits are above.
        places: to be filled with the indices of zero weights whose scores have these upper bits;
            there are as many.
    """
    n = 0
    lowest, highest = np.int32(upper << 16), np.int32(((upper + 1) << 16) - 1)
    for start in range(0, len(weight), _CHUNK):
        part, sizes = weight[start : start + _CHUNK], scores[start : start + _CHUNK]
        made = marked[start : start + _CHUNK]
        n_same = np.int32(0)
        for i in range(len(part)):
            made[i] = (part[i] != 0) | (sizes[i] > highest)
            n_same += np.int32((sizes[i] >= lowest) & (sizes[i] <= highest))
        if n_same:
            for i in range(len(part)):
                if part[i] == 0 and lowest <= sizes[i] <= highest:
                    places[n] = start + i
                    n += 1
