"""Projection of a weight tensor to its top k by magnitude, with a floor for every neuron.

The projection is exact; ties go to the lower flat index. A bias is sorted, a matrix never: its
threshold changes little from step to step, so the next one is searched for in a narrow band around
the last. One compiled pass counts the entries above the band and lists the few inside it, which are
ranked; a second pass sets the others to zero. Everything runs on the calling thread: moving the
weights between two cores takes longer than the passes. Tensors on another device are projected
there, and all tensors without numba, by torch's operations (`device_projection.py`).
Source: Gao et al. 2025, sec. 2.1, App. A.2.
Shapes: R rows, C columns of a matrix; a bias is one row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wirework.nn.device_projection import keep_each_
from wirework.nn.kernels import compiled

_NARROWEST, _WIDEST = 0.01, 0.25  # half the width of the band, as a share of the last threshold
_WIDER = 8  # the second band over the first: another scan takes less than a tenth of sorting
_MOST_RANKED = 1024  # entries of a tensor without a floor that is ranked whole: cheaper than passes
_SERIAL = (1 << 15) - 8  # below 2^15 torch stays on the calling thread, whose cache has the weights
_LARGEST = float(np.finfo(np.float32).max)
_INFINITY = 0x7F800000  # bits of infinity

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.signedinteger[Any]]


class Projection:
    """Repeated projection of one tensor to its top k entries.

    Args:
        weight: (R, C) or (C,) contiguous float32; `keep_` changes it in place.
        floor: fewest nonzeros of each neuron; 0 for none.
        floor_dim: 0 if the rows of `weight` are neurons, 1 if its columns are, None for no neurons.

    Raises:
        ValueError: the weight is not contiguous float32.

    Source: Gao et al. 2025, sec. 2.1, App. A.2.
    """

    def __init__(self, weight: Tensor, *, floor: int = 0, floor_dim: int | None = None) -> None:
        if weight.dtype != torch.float32 or not weight.is_contiguous():
            raise ValueError(f"projection needs contiguous float32, got {weight.dtype}")
        self.weight = weight
        self.columns = weight.shape[-1] if weight.dim() == 2 else weight.numel()
        self.floor_dim = floor_dim if floor else None
        self.floor = 0
        if self.floor_dim is not None:
            self.floor = min(floor, weight.shape[1 - self.floor_dim])
        self._threshold: float | None = None  # the last one
        self._last_change = 0.0  # distance from the threshold before it
        self._places = np.empty(max(64, weight.numel() >> 8), np.int64)  # room for a band

    def n_floor_entries(self) -> int:
        """Return the number of entries that the floor keeps; k cannot be lower."""
        return 0 if self.floor_dim is None else self.floor * self.weight.shape[self.floor_dim]

    def n_kept(self, k: int) -> int:
        """Return the number of entries that `keep_(k)` keeps."""
        return max(k, self.n_floor_entries())

    def keep_(self, k: int) -> int:
        """Set all but k entries to zero: those of largest magnitude, with a floor for each neuron.

        The `floor` largest entries of each neuron are kept first, then the largest of the others.
        Ties go to the lower flat index.

        Args:
            k: number of entries to keep, 1 <= k <= size.

        Returns:
            The number of kept entries: k, or `n_floor_entries()` if that is larger.

        Raises:
            ValueError: k out of range, or a NaN in the weight.
        """
        size = self.weight.numel()
        if not 1 <= k <= size:
            raise ValueError(f"k must be between 1 and the size {size}, got {k}")
        if self.weight.device.type != "cpu" or not compiled.is_available():
            _refuse_nan(bool(keep_all_([self], [k])))
            return self.n_kept(k)
        k, weight = self.n_kept(k), self.weight.detach()  # takes less time than `torch.no_grad`
        if k == size:
            _refuse_nan(bool(torch.isnan(weight.amax())))
        elif size <= _MOST_RANKED and self.floor_dim is None:
            _keep_ranked(weight.view(-1).numpy(), k)
        else:
            self._keep(weight.view(-1, self.columns), k)
        return k

    def _keep(self, weight: Tensor, k: int) -> None:
        values: Floats = weight.numpy()
        for low, high in self._bands(values, k):
            counts, band = self._scan(values, low, high)
            if self._contains_threshold(counts, len(band), k):
                break
        flat = values.reshape(-1)
        band = _by_rank(flat, band)
        _refuse_nan(bool(np.isnan(flat[band[:1]]).any()))
        end = self._fill(counts, band, k)
        # Largest magnitude below the kept ones: all up to it is zeroed, then the remaining ties.
        zeroed = float(np.nextafter(abs(flat[band[end - 1]]), np.float32(0))) if end else high
        dropped = band[end:]
        dropped = dropped[np.abs(flat[dropped]) > zeroed]
        protected = self._protect(values, counts)
        saved = flat[protected]
        for part in torch.split(weight.view(-1), _SERIAL):
            torch.hardshrink(part, zeroed, out=part)
        flat[dropped] = 0
        flat[protected] = saved
        self._remember(zeroed)

    def _remember(self, threshold: float) -> None:
        if np.isfinite(threshold):
            self._last_change = abs(threshold - self._threshold) if self._threshold else 0.0
            self._threshold = threshold

    def _bands(self, values: Floats, k: int) -> Iterator[tuple[float, float]]:
        """Yield bounds of the threshold, both included: two guesses, then exact ones."""
        if k == self.n_floor_entries():
            yield np.inf, np.inf
        elif self._threshold is not None:
            half_width = max(_NARROWEST * self._threshold, 2 * self._last_change)
            for wide in (half_width, _WIDER * half_width):
                reach = min(wide, _WIDEST * self._threshold)
                yield self._threshold - reach, min(self._threshold + reach, _LARGEST)
        yield self._exact_band(values, k)

    def _exact_band(self, values: Floats, k: int) -> tuple[float, float]:
        """Return the band from the k-th to the (k - n_floor_entries)-th largest magnitude."""
        magnitudes = np.abs(values.reshape(-1))
        low, high = magnitudes.size - k, magnitudes.size - k + self.n_floor_entries()
        magnitudes.partition(sorted({low, high}))
        return float(magnitudes[low]), float(magnitudes[high])

    def _scan(self, values: Floats, low: float, high: float) -> tuple[Ints, Ints]:
        """Return each neuron's count of entries above `high`, and the indices of band and NaN."""
        from wirework.nn.kernels.compiled.projection_passes import scan_band

        lowest, highest = np.array([low, high], np.float32).view(np.int32)
        floor_dim = -1 if self.floor_dim is None else self.floor_dim
        counts = np.zeros(1 if floor_dim < 0 else values.shape[floor_dim], np.int64)
        bits = values.view(np.int32)
        n = scan_band(bits, lowest, highest, floor_dim, counts, self._places)
        if n > len(self._places):  # the kernel lists as many as there is room for
            self._places = np.empty(2 * n, np.int64)
            counts[:] = 0
            n = scan_band(bits, lowest, highest, floor_dim, counts, self._places)
        return counts, self._places[:n]

    def _contains_threshold(self, counts: Ints, in_band: int, k: int) -> bool:
        """Return whether the threshold lies in the band."""
        above = int(np.maximum(counts, self.floor).sum())
        return above == k or (above < k <= int(counts.sum()) + in_band)

    def _fill(self, counts: Ints, band: Ints, k: int) -> int:
        """Return how many entries of the ranked band are kept; add them to `counts`."""
        room = k - int(np.maximum(counts, self.floor).sum())
        if counts.min() >= self.floor:
            return room
        neurons = band // self.columns if self.floor_dim == 0 else band % self.columns
        # The entries that fill a neuron's floor are already part of the sum.
        lacking = (self.floor - counts)[neurons]
        free = lacking > 0
        free[free] = _rank_within(neurons[free]) < lacking[free]
        end = int(np.searchsorted(np.cumsum(~free), room, side="right"))
        counts += np.bincount(neurons[:end], minlength=len(counts))
        return end

    def _protect(self, values: Floats, counts: Ints) -> Ints:
        """Return the indices of the floor's entries in neurons that have fewer than the floor."""
        from wirework.nn.kernels.compiled.projection_passes import (
            largest_of_columns,
            largest_of_rows,
        )

        is_short = counts < self.floor
        short = np.flatnonzero(is_short)
        if not len(short):
            return short
        bits = values.view(np.int32)
        if self.floor_dim == 0:
            places = np.empty((len(short), self.floor), np.int64)
            largest_of_rows(bits, short, self.floor, places)
            return (short[:, None] * self.columns + places).reshape(-1)
        places = np.empty((self.columns, self.floor), np.int64)
        largest_of_columns(bits, is_short, self.floor, places)
        return (places[short] * self.columns + short[:, None]).reshape(-1)


def keep_all_(projections: Sequence[Projection], ks: Sequence[int]) -> Tensor:
    """Do `keep_(k)` for each tensor on the tensors' device, without a wait for its result.

    Args:
        projections: of tensors on one device.
        ks: number of entries to keep of each, 1 <= k <= size.

    Returns:
        Bool scalar on the device: whether a tensor has a NaN, for which `keep_` raises an error.
    """
    return keep_each_(
        [projection.weight for projection in projections],
        [projection.n_kept(k) for projection, k in zip(projections, ks, strict=True)],
        [(projection.floor, projection.floor_dim) for projection in projections],
    )


def _refuse_nan(has_nan: bool) -> None:
    if has_nan:
        raise ValueError("projection got NaN, which has no rank")


def _keep_ranked(flat: Floats, k: int) -> None:
    """Set all but the k entries of largest magnitude to zero."""
    ranked = _by_rank(flat, np.arange(flat.size))
    _refuse_nan(bool(np.isnan(flat[ranked[0]])))
    flat[ranked[k:]] = 0


def _by_rank(flat: Floats, places: Ints) -> Ints:
    """Sort indices by descending magnitude, then index, NaN first, by one integer key."""
    magnitudes = np.abs(flat[places]).view(np.int32).astype(np.int64)  # bits order like values
    keys = (_INFINITY - magnitudes) << 32 | places
    keys.sort()
    return keys & 0xFFFFFFFF


def _rank_within(groups: Ints) -> Ints:
    """Return, for each entry, the number of earlier entries of the same group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return ranks
