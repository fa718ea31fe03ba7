"""Selection of the k winners of each token, and of the units close behind, on a CPU.

Compiled kernels find and list them, or numpy's partition where numba is absent. Both select the
same entries. Rows with ties, infinities or NaN are ranked by a sort.
Shapes: N tokens, U units of one layer and kind, S entries that can have a gradient.
Source: Ferrao et al. 2025.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.sparse_pattern import SparsePattern


def is_supported(x: Tensor) -> bool:
    """Return whether `select_winners` supports scores of this device and dtype."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


class WinnerSelection(NamedTuple):
    """The k winners of each token and the units close behind, which get a gradient."""

    pattern: SparsePattern
    """Winners and units close behind, S in all."""
    scores: Tensor
    """(S,) their scores."""
    is_winner: Tensor
    """(S,) bool, True for the k winners of each token."""
    border: Tensor
    """(N, 2) int64, indices into S of each token's k-th and (k+1)-th score."""


def select_winners(
    scores: Tensor, k: int, temperature: float = 0.0, epsilon: float = 0.0
) -> WinnerSelection:
    """Return the k winners of each token and the units close enough behind to get a gradient.

    A unit is left out if its slope under the sigmoid is lost in rounding next to that of the
    (k+1)-th score.

    Args:
        scores: (N, U) float32 or float64 on a CPU.
        k: 1 <= k < U.
        temperature, epsilon: as in `k_winners`.
    """
    values = scores.detach().contiguous().numpy()
    count, width = values.shape
    parts_by_start = {}

    def select(rows: slice) -> None:
        parts_by_start[rows.start] = _select(values[rows], k, temperature, epsilon)

    select(slice(0, 0))  # an empty part with the right dtypes, in case there are no rows
    each_piece(count, width, select)
    parts, n_before = [], 0
    for start in sorted(parts_by_start):
        part = parts_by_start[start]
        parts.append(part._replace(tokens=part.tokens + start, border=part.border + n_before))
        n_before += len(part.units)
    joined = _Entries(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    tokens, units, *others = (torch.from_numpy(array) for array in joined)
    return WinnerSelection(SparsePattern(tokens, units, (count, width)), *others)


_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.floating[Any]]


class _Entries(NamedTuple):
    """Selected entries of some rows; the fields are those of `WinnerSelection`, (S,) each."""

    tokens: _Ints
    units: _Ints
    scores: _Floats
    is_winner: npt.NDArray[np.bool_]
    border: _Ints


class _Bounds(NamedTuple):
    """Values of each row, (N,): the k-th and the (k+1)-th highest key, and the lowest selected."""

    inside: _Floats
    outside: _Floats
    lowest: _Floats


def _select(scores: _Floats, k: int, temperature: float, epsilon: float) -> _Entries:
    """Return the selected entries of some rows."""
    inside, outside = _borders(scores, k)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = inside - outside
        # Distance from the border, where slopes are largest; at low temperature all are small.
        reach = -1.2 * np.log(np.finfo(scores.dtype).eps)
        lowest = outside - reach * (temperature * gap + epsilon)
    irregular = np.flatnonzero(~((gap > 0) & (gap < np.inf)))
    keys = scores
    if len(irregular):  # ties, infinities, NaN: use ranks, and keep all units
        keys = scores.copy()
        keys[irregular] = _ranks(scores[irregular])
        inside[irregular], outside[irregular] = _partition(keys[irregular], k)
        lowest[irregular] = 0
    list_entries = _list_compiled if compiled.is_available() else _list
    return list_entries(keys, scores, _Bounds(inside, outside, lowest))


def _borders(scores: _Floats, k: int) -> tuple[_Floats, _Floats]:
    """Return the k-th and the (k+1)-th highest score of each row, (N,) each."""
    if not compiled.is_available():
        return _partition(scores, k)
    from wirework.nn.kernels.compiled.winner_selection import find_borders

    inside, outside = (np.empty(len(scores), scores.dtype) for _ in range(2))
    find_borders(scores, k, inside, outside)
    failed = np.flatnonzero(np.isnan(inside))
    if len(failed):
        inside[failed], outside[failed] = _partition(scores[failed], k)
    return inside, outside


def _partition(scores: _Floats, k: int) -> tuple[_Floats, _Floats]:
    """Return the same as `_borders`; NaN is highest."""
    first = scores.shape[1] - k
    parted = np.partition(scores, first - 1, axis=-1)
    return parted[:, first:].min(-1), parted[:, first - 1].copy()


def _ranks(scores: _Floats) -> _Ints:
    """Return ranks within a row, (N, U), from 0; ties: later entries are lower; NaN is highest."""
    rising = np.argsort(scores[:, ::-1], axis=-1, kind="stable")
    return np.argsort(rising, axis=-1)[:, ::-1]


def _list(keys: _Floats, scores: _Floats, bounds: _Bounds) -> _Entries:
    """Return the entries whose keys, (N, U), reach the lowest one of their row."""
    width = keys.shape[1]
    flat = np.flatnonzero(keys >= bounds.lowest[:, None])
    tokens, listed = flat // width, keys.reshape(-1)[flat]
    places = [_first(tokens, listed == end[tokens]) for end in bounds[:2]]
    is_winner = listed >= bounds.inside[tokens]
    return _Entries(
        tokens, flat - tokens * width, scores.reshape(-1)[flat], is_winner, np.stack(places, 1)
    )


def _first(tokens: _Ints, hits: npt.NDArray[np.bool_]) -> _Ints:
    """Return the index of each token's first hit; every token has one."""
    hit_indices = np.flatnonzero(hits)
    return hit_indices[np.unique(tokens[hit_indices], return_index=True)[1]]


def _list_compiled(keys: _Floats, scores: _Floats, bounds: _Bounds) -> _Entries:
    """Return the same as `_list`."""
    from wirework.nn.kernels.compiled.winner_selection import list_entries

    room, border = keys.size + 1, np.empty((len(keys), 2), np.int64)
    tokens, units = np.empty(room, np.int64), np.empty(room, np.int64)
    listed, is_winner = np.empty(room, scores.dtype), np.empty(room, np.bool_)
    n = list_entries(
        keys, scores, bounds.lowest, bounds.inside, bounds.outside,
        tokens, units, listed, is_winner, border,
    )  # fmt: skip
    return _Entries(tokens[:n], units[:n], listed[:n], is_winner[:n], border)
