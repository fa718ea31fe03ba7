"""Products with a weight matrix that has few nonzero entries, from its compressed rows.

A product from compressed rows is used where it was measured to be faster on this machine, for the
sizes and the density of the matrix. The number of tokens has no part in the choice, so that a
sequence gives the same bits in every batch.

Shapes: T tokens, D inputs, M outputs, E nonzero entries.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wirework import fastest
from wirework.block_pool import empty
from wirework.errors import InputError
from wirework.malloc import freed_memory_kept
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.products import library_for, product

_Result = TypeVar("_Result")

VARIABLE = "WIREWORK_SPARSE"
"""Environment variable with the highest density of a matrix that is multiplied from its compressed
rows, or `auto` to measure it."""

_MIN_SIZE = 1 << 13  # entries of a matrix, zeros included, from which its entries are counted
_MAX_DENSITY = 1 / 4  # no processor is known on which a denser matrix is faster from its entries
_TIMED_TOKENS = 512
_MAX_INVERSE = 1024  # of the density


class CompressedRows(NamedTuple):
    """A sparse matrix (M, D) row by row (CSR)."""

    starts: NDArray[np.int32]
    """(M + 1,) index of the first entry of each row, and E."""
    columns: NDArray[np.int32]
    """(E,) column of each entry, ascending within a row."""
    values: NDArray[np.float32]
    """(E,) the entries."""
    width: int
    """D."""

    @classmethod
    def zeros(cls, n_rows: int, width: int) -> "CompressedRows":
        """Return a matrix of zeros."""
        starts = np.zeros(n_rows + 1, np.int32)
        return cls(starts, np.empty(0, np.int32), np.empty(0, np.float32), width)


@contextmanager
def unchanged_weights() -> Iterator[None]:
    """Compress each weight once for all products in a `with` block, a series of passes.

    Outside such a block a weight is read at each product, so that every change of it counts. Inside
    it no weight may change, whichever way. Memory that a pass frees is kept for the next one.
    """
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        with freed_memory_kept(same_sizes=False):
            yield
    finally:
        _known.reset(token)


def weights_are_unchanged() -> bool:
    """Return whether a block of `unchanged_weights` runs."""
    return _known.get() is not None


def compressed_if_faster(weight: Tensor) -> CompressedRows | None:
    """Return the compressed rows of a weight if products with them are faster here, or None.

    Args:
        weight: (M, D) float32 on the CPU.
    """
    if weight.numel() < _MIN_SIZE or not weight.is_contiguous() or not compiled.is_available():
        return None
    if weight._is_view():  # a new object at each product, which would be kept for nothing
        return _compressed_if_faster(weight)
    return once_if_unchanged(_compressed_if_faster, weight)


def compressed_rows(weight: Tensor, n_entries: int) -> CompressedRows:
    """Return the compressed rows of (M, D) contiguous float32 with E nonzero entries."""
    from wirework.nn.kernels.compiled.sparse_products import compress

    n_outputs, width = weight.shape
    rows = _empty(n_outputs, width, n_entries + 1)
    compress(weight.detach().numpy(), *rows[:3])
    return rows._replace(columns=rows.columns[:-1], values=rows.values[:-1])


def transposed(matrix: CompressedRows) -> CompressedRows:
    """Return the compressed rows of the transpose, (D, M)."""
    from wirework.nn.kernels.compiled.sparse_products import transpose_rows

    rows = _empty(matrix.width, len(matrix.starts) - 1, len(matrix.values))
    transpose_rows(*matrix[:3], *rows[:3])
    return rows


def transposed_once(matrix: CompressedRows) -> CompressedRows:
    """Return `transposed(matrix)`, computed once in a block of `unchanged_weights`."""
    return once_if_unchanged(transposed, matrix)


def without_zeros(matrix: CompressedRows) -> CompressedRows:
    """Return the compressed rows of the same matrix without entries that are 0."""
    from wirework.nn.kernels.compiled.sparse_products import drop_zeros

    rows = _empty(len(matrix.starts) - 1, matrix.width, int(np.count_nonzero(matrix.values)))
    drop_zeros(*matrix[:3], *rows[:3])
    return rows


def sparse_product(x: Tensor, matrix: CompressedRows, bias: Tensor | None = None) -> Tensor:
    """Return `x @ matrix.T + bias`, without autograd.

    Args:
        x: (T, D) float32 on the CPU.
        matrix: (M, D).
        bias: (M,).

    Returns:
        (T, M); the same bits for any number of threads.
    """
    from wirework.nn.kernels.compiled.sparse_products import multiply_rows
    from wirework.nn.kernels.compiled.tiles import TILE

    n_outputs = len(matrix.starts) - 1
    out = empty((len(x), n_outputs))
    inputs, outputs = x.detach().contiguous().numpy(), out.numpy()
    added = np.zeros(n_outputs, np.float32) if bias is None else bias.detach().numpy()

    def multiply(tiles: slice) -> None:
        tokens = slice(tiles.start * TILE, tiles.stop * TILE)
        multiply_rows(inputs[tokens], *matrix[:3], added, outputs[tokens])

    each_piece(-(-len(x) // TILE), TILE * max(matrix.width, n_outputs), multiply)
    return out


_known: ContextVar[dict[tuple[Any, ...], tuple[Any, Any]] | None] = ContextVar(
    "results for weights that do not change", default=None
)
"""Results by function and identity of the arguments, which are kept: no other object gets it."""


def once_if_unchanged(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Return the result of a function; in a block of `unchanged_weights`, the first one.

    Args:
        function: its name tells it apart from other functions.
        arguments: all objects that the result depends on; the same objects give the same result.
    """
    known = _known.get()
    if known is None:
        return function(*arguments)
    key = (function.__module__, function.__qualname__, *map(id, arguments))
    if key not in known:
        known[key] = (arguments, function(*arguments))
    result: _Result = known[key][1]
    return result


def _compressed_if_faster(weight: Tensor) -> CompressedRows | None:
    from wirework.nn.kernels.compiled.sparse_products import count_entries

    size, highest = weight.numel(), highest_density()
    limit = int(size * (_MAX_DENSITY if highest is None else highest))
    n_entries = count_entries(weight.detach().numpy(), limit)
    if n_entries > limit or (
        highest is None and not _is_faster(weight.shape[0], weight.shape[1], n_entries)
    ):
        return None
    return compressed_rows(weight, n_entries)


def highest_density() -> float | None:
    """Return the density that the environment sets, or None if it is to be measured.

    Raises:
        InputError: the variable is no density.
    """
    return _density(os.environ.get(VARIABLE, "auto"))


@cache
def _density(word: str) -> float | None:
    if word == "auto":
        return None
    try:
        density = float(word)
    except ValueError:
        density = -1
    if not 0 <= density <= 1:
        raise InputError(f"{VARIABLE} must be auto or a density from 0 to 1, got {word!r}")
    return density


def _empty(n_rows: int, width: int, n_entries: int) -> CompressedRows:
    return CompressedRows(
        np.empty(n_rows + 1, np.int32),
        np.empty(n_entries, np.int32),
        np.empty(n_entries, np.float32),
        width,
    )


def _is_faster(n_outputs: int, width: int, n_entries: int) -> bool:
    """Return whether the product from compressed rows was measured to be faster here."""
    outputs, inputs = (1 << (n - 1).bit_length() for n in (n_outputs, width))
    inverse = 1 << (n_outputs * width // max(1, n_entries)).bit_length() - 1  # of the density
    inverse = min(inverse, _MAX_INVERSE)
    # One choice cannot be measured inside the measurement of another.
    library_for("nt", _TIMED_TOKENS, inputs, outputs)
    key = f"sparse product {inputs}x{outputs} 1/{inverse}"
    return fastest.choose(key, "dense", lambda: _ways(outputs, inputs, inverse)) == "sparse"


def _ways(outputs: int, inputs: int, inverse: int) -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_TIMED_TOKENS, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) > 1 / inverse] = 0
    matrix = compressed_rows(weight, int(weight.count_nonzero()))
    return {
        "dense": lambda: product(x, weight.t()),
        "sparse": lambda: sparse_product(x, matrix),
    }
