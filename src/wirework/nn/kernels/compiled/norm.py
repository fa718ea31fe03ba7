"""RMSNorm of rows in float32, forward and backward, each in one pass over memory.

Shapes: R rows, D entries a row.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled, compiled_with_any_order

Floats = NDArray[np.float32]


@compiled
def normalise(x: Floats, gain: Floats, eps: np.float32, out: Floats, scales: Floats) -> None:
    """Fill `out` with the rows divided by their root mean square, times the gain.

    Args:
        x: (R, D).
        gain: (D,).
        eps: added to the mean square.
        out: (R, D) to be filled.
        scales: (R,) to be filled with the reciprocal of the root mean squares.
    """
    width = np.float32(x.shape[1])
    for row in range(len(x)):
        entries, normed = x[row], out[row]
        scale = np.float32(1) / np.sqrt(_sum_of_squares(entries) / width + eps)
        scales[row] = scale
        for i in range(len(entries)):
            normed[i] = entries[i] * scale * gain[i]


@compiled
def normalise_backward(
    grad: Floats, x: Floats, gain: Floats, scales: Floats, to_x: Floats, to_gain: Floats
) -> None:
    """Fill in the gradients of the rows and the gain.

    Args:
        grad: (R, D) gradient of the output.
        x: (R, D).
        gain: (D,).
        scales: (R,) from `normalise`.
        to_x: (R, D) to be filled.
        to_gain: (D,) to be filled.
    """
    width = np.float32(x.shape[1])
    to_gain[:] = 0
    for row in range(len(x)):
        entries, slopes, made, scale = x[row], grad[row], to_x[row], scales[row]
        projection = _sum_of_products(entries, slopes, gain) * scale / width
        for i in range(len(entries)):
            unit = entries[i] * scale
            to_gain[i] += slopes[i] * unit
            made[i] = (slopes[i] * gain[i] - unit * projection) * scale


@compiled_with_any_order
def _sum_of_squares(entries: Floats) -> np.float32:
    total = np.float32(0)
    for i in range(len(entries)):
        total += entries[i] * entries[i]
    return total


@compiled_with_any_order
def _sum_of_products(a: Floats, b: Floats, c: Floats) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i] * c[i]
    return total
