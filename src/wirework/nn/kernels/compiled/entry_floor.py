"""The largest entries of each neuron, which a projection keeps first."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.signedinteger[Any]]
Mask = NDArray[np.bool_]


@compiled
def mark_largest_of_neurons(
    values: Floats, starts: Ints, entries: Ints, floor: int, marked: Mask
) -> None:
    """Set `marked` at the `floor` entries of largest magnitude of each neuron.

    Args:
        values: (E,) entries of a sparse matrix.
        starts: (G + 1,) index in `entries` of the first entry of each neuron, and E.
        entries: (E,) indices in `values`, neuron by neuron, ascending within a neuron.
        floor: number of entries of each neuron; all, if it has fewer.
        marked: (E,) False; changed.
    """
    for neuron in range(len(starts) - 1):
        start, end = starts[neuron], starts[neuron + 1]
        for _ in range(min(floor, end - start)):
            best, most = -1, np.float32(-1)
            for i in range(start, end):
                entry = entries[i]
                size = abs(values[entry])
                if size > most and not marked[entry]:  # the first of equals
                    best, most = entry, size
            if best < 0:  # only NaN is left
                break
            marked[best] = True
