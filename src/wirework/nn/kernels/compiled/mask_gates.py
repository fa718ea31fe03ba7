"""The gradients of mean ablation in one pass over the activations.

Shapes: R masks, T tokens of each, N nodes.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled

Floats = NDArray[np.float32]

_BLOCK = 64  # tokens whose gradients are summed in float32


@compiled
def gate_gradients(
    grad: Floats, x: Floats, gates: Floats, mean: Floats, to_x: Floats, to_gates: Floats
) -> None:
    """Fill the gradients of `x * gates + (1 - gates) * mean` with respect to `x` and `gates`.

    Args:
        grad: (R, T, N) gradient of the output.
        x: (R, T, N) activations.
        gates: (R, N).
        mean: (N,).
        to_x: (R, T, N) to be filled.
        to_gates: (R, N) to be filled: the sum over tokens.
    """
    n_masks, n_tokens, width = x.shape
    sums = np.empty(width, np.float64)
    part = np.empty(width, np.float32)
    for mask in range(n_masks):
        sums[:] = 0
        for start in range(0, n_tokens, _BLOCK):
            part[:] = 0
            for token in range(start, min(start + _BLOCK, n_tokens)):
                for i in range(width):
                    to_x[mask, token, i] = grad[mask, token, i] * gates[mask, i]
                    part[i] += grad[mask, token, i] * (x[mask, token, i] - mean[i])
            for i in range(width):
                sums[i] += part[i]
        for i in range(width):
            to_gates[mask, i] = sums[i]
