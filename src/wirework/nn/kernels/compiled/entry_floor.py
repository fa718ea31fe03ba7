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
    best = np.empty(floor, np.int64)  # entries of a neuron, largest first
    sizes = np.empty(floor, np.float32)
    for neuron in range(len(starts) - 1):
        n = 0
        for i in range(starts[neuron], starts[neuron + 1]):
            entry = entries[i]
            size = abs(values[entry])
            if n == floor and not size > sizes[floor - 1]:  # the first of equals stays
                continue
            place = n if n < floor else floor - 1
            while place > 0 and size > sizes[place - 1]:
                best[place], sizes[place] = best[place - 1], sizes[place - 1]
                place -= 1
            best[place], sizes[place] = entry, size
            n = min(n + 1, floor)
        for place in range(n):
            marked[best[place]] = True
