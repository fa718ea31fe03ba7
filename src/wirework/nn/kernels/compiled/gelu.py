"""GELU, then AbsTopK, row by row while the row is in cache, and the gradient of both.

GELU(x) is x P(x), with P(x) the probability that a standard normal number is below x. Here it is
max(x, 0) - |x| P(-|x|), which has a small relative error for negative x too. P(-t) is
exp(-t**2 / 2) times a polynomial of 1 / (1 + 0.3 t).

Shapes: R rows, N entries a row, of which k are kept.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.kept_places import gather_kept, scatter_products
from wirework.nn.kernels.compiled.selection import HAS_NAN, NO_GUESS, select_row

Floats = NDArray[np.float32]
Bits = NDArray[np.int32]
Bytes = NDArray[np.uint8]

_BLOCK = 128  # entries that are computed at once
_LARGEST = np.float32(12.9)
"""GELU(-t) is 0 beyond. P(-t) would soon be below the normal numbers of float32, with which
processors compute up to twenty times slower."""
_SMALLEST = np.float32(1e-15)
"""P(-t) and exp(-t**2 / 2) are those of 0 below. The square of smaller numbers would be below the
normal ones; weight decay moves the biases of silent neurons there."""
_TINY = np.float32(5e-38)
"""GELU is 0 below this magnitude, as its result would soon be below the normal numbers."""
_FITTED = 13.0
"""End of the range on which the polynomial for P(-t) is fitted."""
_RATE, _DEGREE = np.float32(0.3), 8
_TO_POWER_OF_2 = np.float32(-0.5 / math.log(2))
_ROOT = np.float32(1 / math.sqrt(2 * math.pi))


def _coefficients() -> list[float]:
    """Return the polynomial for P(-t) exp(t**2 / 2), with a relative error below 1e-7."""
    t = _FITTED * (1 - np.cos(np.linspace(0, np.pi / 2, 1000)))
    wanted = np.array([math.erfc(x / math.sqrt(2)) / 2 * math.exp(x * x / 2) for x in t])
    powers = (1 / (1 + float(_RATE) * t))[:, None] ** np.arange(_DEGREE + 1)
    fitted: list[float] = np.linalg.lstsq(powers / wanted[:, None], np.ones_like(t))[0].tolist()
    return fitted


# Both polynomials have the lowest power first; that of 2**r, for r from -1/2 to 1/2, is Taylor's.
_P = tuple(np.float32(c) for c in _coefficients())
_E = tuple(np.float32(np.log(2) ** i / math.factorial(i)) for i in range(8))


@compiled
def gelu_top_k_rows(
    x: Floats, k: int, infinity: np.int32, out: Floats, bits: Bits, mask: Bytes, slopes: Floats
) -> bool:
    """Fill `out` with the k entries of largest magnitude of the GELU of each row, and 0.

    Args:
        x: (R, N).
        k: 1 <= k < N. Ties go to the lower index.
        infinity: bits of infinity.
        out: (R, N) to be filled.
        bits: (R, N) int32, the same memory as `out`.
        mask: (R, ceil(N / 8)) to be filled with a bit for each entry, as by `select_rows`.
        slopes: (R, k) to be filled with the derivatives of GELU at the kept entries, by index;
            (R, 0) if they are not wanted.

    Returns:
        Whether a row has a NaN; the later rows are then not filled.
    """
    width = x.shape[1]
    magnitude = np.int32(0x7FFFFFFF)
    upper, low = np.empty(width, np.int16), np.empty(width, np.int64)
    tail, density = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    chosen = np.empty(k, np.float32)
    guess = NO_GUESS
    for row in range(len(x)):
        _gelu(x[row], tail, density, out[row])
        guess = select_row(
            bits[row], k, magnitude, infinity, upper, low, guess, bits[row], mask[row]
        )
        if guess == HAS_NAN:
            return True
        if slopes.shape[1]:
            gather_kept(mask[row], x[row], chosen)
            _derivative(chosen, tail, density, slopes[row])
    return False


@compiled
def gelu_rows(x: Floats, out: Floats) -> None:
    """Fill `out` with the GELU of all entries, with the bits of `gelu_top_k_rows`; both (R, N)."""
    tail, density = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    for row in range(len(x)):
        _gelu(x[row], tail, density, out[row])


@compiled
def gelu_top_k_backward(grad: Floats, mask: Bytes, slopes: Floats, to_x: Floats) -> None:
    """Fill in the gradient of `x`, from that of `out` and the other results of `gelu_top_k_rows`.

    Args:
        grad: (R, N).
        mask: (R, ceil(N / 8)).
        slopes: (R, k).
        to_x: (R, N) to be filled.
    """
    for row in range(len(grad)):
        scatter_products(mask[row], grad[row], slopes[row], to_x[row])


@compiled
def _gelu(x: Floats, tail: Floats, density: Bits, out: Floats) -> None:
    """Fill `out` with the GELU of all entries."""
    for start in range(0, len(x), _BLOCK):
        part, made = x[start : start + _BLOCK], out[start : start + _BLOCK]
        _normal(part, tail, density)
        for i in range(len(part)):
            entry = part[i]
            entry = np.float32(0) if abs(entry) < _TINY else entry
            is_far = entry < -_LARGEST  # -infinity times 0 is NaN, as in torch's GELU
            size = abs(entry) if is_far else _clipped(abs(entry))
            missing = size * (np.float32(0) if is_far else tail[i])
            # A comparison with NaN is false, so NaN stays.
            made[i] = (np.float32(0) if entry < 0 else entry) - missing


@compiled
def _derivative(x: Floats, tail: Floats, density: Bits, out: Floats) -> None:
    """Fill `out` with the derivative of GELU, P(x) + x exp(-x**2 / 2) / sqrt(2 pi)."""
    densities = density.view(np.float32)
    for start in range(0, len(x), _BLOCK):
        part, made = x[start : start + _BLOCK], out[start : start + _BLOCK]
        _normal(part, tail, density)
        for i in range(len(part)):
            entry = part[i]
            below = tail[i] if entry < 0 else np.float32(1) - tail[i]
            size = _clipped(abs(entry))
            clipped = -size if entry < 0 else size
            made[i] = below + clipped * _ROOT * densities[i]


@compiled
def _normal(x: Floats, tail: Floats, density: Bits) -> None:
    """Fill in P(-|x|), and exp(-x**2 / 2) as the bits of floats, of at most a block of entries."""
    densities = density.view(np.float32)
    for i in range(len(x)):
        size = _within(abs(x[i]))
        power = size * size * _TO_POWER_OF_2
        whole = np.floor(power + np.float32(0.5))
        r = power - whole
        density[i] = (np.int32(whole) + 127) << 23
        polynomial = _E[4] + r * (_E[5] + r * (_E[6] + r * _E[7]))
        tail[i] = _E[0] + r * (_E[1] + r * (_E[2] + r * (_E[3] + r * polynomial)))
    for i in range(len(x)):
        densities[i] *= tail[i]
        s = np.float32(1) / (np.float32(1) + _RATE * _within(abs(x[i])))
        polynomial = _P[4] + s * (_P[5] + s * (_P[6] + s * (_P[7] + s * _P[8])))
        polynomial = _P[0] + s * (_P[1] + s * (_P[2] + s * (_P[3] + s * polynomial)))
        tail[i] = densities[i] * polynomial


@compiled
def _clipped(size: np.float32) -> np.float32:
    """Return a number, at most `_LARGEST`; NaN stays."""
    return _LARGEST if size > _LARGEST else size


@compiled
def _within(size: np.float32) -> np.float32:
    """Return a number, at least `_SMALLEST` and at most `_LARGEST`; NaN stays."""
    return _SMALLEST if size < _SMALLEST else _clipped(size)
