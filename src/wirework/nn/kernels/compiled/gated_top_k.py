"""AbsTopK and mean ablation of several sites side by side, in one pass each way.

Channels that are always zero may be left out of a site. AbsTopK then keeps the same entries: left
out zeros only count where fewer than k entries are nonzero, since the first zeros are kept too and
pass their gradients.

Shapes: R masks, U rows of each, C channels of all sites, S sites.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.selection import Bits, Upper, find_threshold
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import load, store

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITY = np.int32(0x7F800000)
_BLOCK = 64  # rows whose gradients are summed in float32


@compiled
def keep_and_ablate(
    x: Floats, bits: Bits, sites: Ints, left_out: Ints, gates: Floats, mean: Floats,
    out: Floats, kept: Floats,
) -> bool:  # fmt: skip
    """Fill `out` with `abs_top_k(x) * gates + (1 - gates) * mean`, site by site.

    Args:
        x: (R, U, C).
        bits: the same as int32.
        sites: (S, 2) the channel after the last one of each site, and its k, or -1 to keep all.
        left_out: (C,) how many channels of its site are left out before each channel.
        gates: (R, C).
        mean: (C,).
        out: (R, U, C) to be filled.
        kept: (R, U, C) to be filled with 1 where AbsTopK keeps the entry, also a zero, else 0.

    Returns:
        Whether AbsTopK got NaN; the later rows are then not filled.
    """
    n_masks, n_rows, width = x.shape
    keys = np.empty(width, np.int32)
    upper = np.empty(width, np.int16)
    low = np.empty(width, np.int64)
    ablated = np.empty(width, np.float32)
    all_x, all_bits, all_gates, all_out, all_kept = (
        x.reshape(-1), bits.reshape(-1), gates.reshape(-1), out.reshape(-1), kept.reshape(-1),
    )  # fmt: skip
    for mask in range(n_masks):
        for i in range(width):
            ablated[i] = (np.float32(1) - gates[mask, i]) * mean[i]
        for row in range(mask * n_rows, (mask + 1) * n_rows):
            start, first = row * width, 0
            for i in range(width):
                keys[i] = all_bits[start + i] & _MAGNITUDE
            for site in range(len(sites)):
                end = sites[site, 0]
                if _keep(keys, first, end, upper, low, sites[site, 1], left_out, all_kept, start):
                    return True
                first = end
            _blend(all_x, all_kept, start, all_gates, mask * width, ablated, all_out)
    return False


@compiled
def keep_and_ablate_backward(
    grad: Floats, x: Floats, kept: Floats, gates: Floats, mean: Floats, to_x: Floats,
    to_gates: Floats,
) -> None:  # fmt: skip
    """Fill the gradients of `keep_and_ablate` with respect to `x` and `gates`.

    Args:
        grad: (R, U, C) gradient of the output.
        x, kept, gates, mean: as in `keep_and_ablate`.
        to_x: (R, U, C) to be filled.
        to_gates: (R, C) to be filled: the sum over rows.
    """
    n_masks, n_rows, width = x.shape
    sums = np.empty(width, np.float64)
    part = np.empty(width, np.float32)
    all_grad, all_x, all_kept, all_gates, all_to_x = (
        grad.reshape(-1), x.reshape(-1), kept.reshape(-1), gates.reshape(-1), to_x.reshape(-1),
    )  # fmt: skip
    for mask in range(n_masks):
        sums[:] = 0
        for first in range(0, n_rows, _BLOCK):
            part[:] = 0
            for row in range(first, min(first + _BLOCK, n_rows)):
                start = (mask * n_rows + row) * width
                _pass_kept(all_grad, all_kept, start, all_gates, mask * width, width, all_to_x)
                _add_deviations(all_grad, all_x, all_kept, start, mean, part)
            for i in range(width):
                sums[i] += part[i]
        for i in range(width):
            to_gates[mask, i] = sums[i]


@compiled
def _keep(
    keys: Bits, first: int, end: int, upper: Upper, low: Ints, k: int, left_out: Ints,
    kept: Floats, start: int,
) -> bool:  # fmt: skip
    """Fill `kept`, from `start`, for the channels of one site; return whether there is a NaN."""
    if first == end:
        return False
    if k < 0:
        kept[start + first : start + end] = 1
        return False
    n_nonzero, largest = np.int32(0), np.int32(0)
    for i in range(first, end):
        n_nonzero += np.int32(keys[i] != 0)
        largest = max(largest, keys[i])
    if largest > _INFINITY:
        return True
    if n_nonzero <= k:
        _keep_first_zeros(keys, first, end, n_nonzero, k - n_nonzero, left_out, kept, start)
        return False
    for i in range(first, end):
        upper[i] = keys[i] >> 16
    threshold, n_reached = find_threshold(keys[first:end], upper[first:end], low, k, largest, -1)
    least = np.int32(threshold)
    for i in range(first, end):
        kept[start + i] = np.float32(keys[i] >= least)
    n_surplus, i = n_reached - k, end
    while n_surplus:
        i -= 1
        if keys[i] == least:
            kept[start + i] = 0
            n_surplus -= 1
    return False


@compiled
def _keep_first_zeros(
    keys: Bits, first: int, end: int, n_nonzero: int, n: int, left_out: Ints, kept: Floats,
    start: int,
) -> None:  # fmt: skip
    """Keep all nonzero entries and the first n zeros of a site, counting those left out."""
    if end - first - n_nonzero + left_out[end - 1] <= n:  # no zero comes too late
        for i in range(first, end):
            kept[start + i] = 1
        return
    i, n_before = first, 0
    while i < end and (keys[i] != 0 or left_out[i] + n_before < n):
        kept[start + i] = 1
        n_before += keys[i] == 0
        i += 1
    for later in range(i, end):
        kept[start + later] = np.float32(keys[later] != 0)


@compiled
def _blend(
    x: Floats, kept: Floats, start: int, gates: Floats, gate: int, ablated: Floats, out: Floats
) -> None:
    """Fill a row of `out` with `x * kept * gates + ablated`.

    Vectors are written here since a loop over so many arrays is not vectorised.
    """
    width = len(ablated)
    whole = width - width % LANES
    for i in range(0, whole, LANES):
        value = load(x, start + i) * load(kept, start + i)
        store(out, start + i, value * load(gates, gate + i) + load(ablated, i))
    for i in range(whole, width):
        out[start + i] = x[start + i] * kept[start + i] * gates[gate + i] + ablated[i]


@compiled
def _pass_kept(
    grad: Floats, kept: Floats, start: int, gates: Floats, gate: int, width: int, to_x: Floats
) -> None:
    """Fill a row of `to_x` with `grad * kept * gates`."""
    whole = width - width % LANES
    for i in range(0, whole, LANES):
        slope = load(grad, start + i) * load(kept, start + i)
        store(to_x, start + i, slope * load(gates, gate + i))
    for i in range(whole, width):
        to_x[start + i] = grad[start + i] * kept[start + i] * gates[gate + i]


@compiled
def _add_deviations(
    grad: Floats, x: Floats, kept: Floats, start: int, mean: Floats, sums: Floats
) -> None:
    """Add a row of slopes times deviations from the mean, of what AbsTopK returns."""
    width = len(mean)
    whole = width - width % LANES
    for i in range(0, whole, LANES):
        deviations = load(x, start + i) * load(kept, start + i) - load(mean, i)
        store(sums, i, load(sums, i) + load(grad, start + i) * deviations)
    for i in range(whole, width):
        sums[i] += grad[start + i] * (x[start + i] * kept[start + i] - mean[i])
