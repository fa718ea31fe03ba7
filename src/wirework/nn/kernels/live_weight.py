"""A weight matrix of which only some entries are trained; the others are zero.

The trained entries are the live (nonzero) ones and candidates, which are zero and may come alive.
Output, input gradient and the gradients of the entries cost as much as there are entries. Now and
then the dense gradient of the matrix is computed as well, to choose other candidates.

Shapes: M outputs, D inputs, E trained entries, T tokens. Entries are in ascending flat order.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.layer_gradients import layer_gradients
from wirework.nn.kernels.sparse_linear import (
    CompressedRows,
    sparse_product,
    transposed,
    without_zeros,
)
from wirework.nn.kernels.weight_gradient import weight_gradient


class LiveWeight:
    """The trained entries of a weight matrix.

    The dense matrix holds the same values, and products leave out entries that are zero: call
    `update_` after a change of `values`. Nothing else may write to the dense matrix.

    Args:
        weight: (M, D) float32 on the CPU; nonzero only at `places`.
        places: (E,) int64 flat indices, ascending.
    """

    def __init__(self, weight: Tensor, places: Tensor) -> None:
        self.weight = weight
        self.is_exploring = False
        """Whether the next backward pass computes the dense gradient too."""
        self.explored: Tensor | None = None
        """(M, D) that gradient, until it is used."""
        self.nonzero_rows = CompressedRows.zeros(*weight.shape)
        """The matrix as of the last `update_`, (M, D)."""
        self.set_places(places, weight.detach().view(-1)[places])

    def set_places(self, places: Tensor, values: Tensor) -> None:
        """Train other entries, which are a new parameter.

        Args:
            places: (E,) int64 flat indices, ascending.
            values: (E,) float32.
        """
        n_rows, width = self.weight.shape
        self.places = places.to(torch.int32 if n_rows * width < 1 << 31 else torch.int64)
        """(E,) flat indices, ascending; half the memory of int64 where they fit."""
        self.values = nn.Parameter(values)
        """(E,) trained entries."""
        self.values.grad = torch.zeros_like(values)
        rows, columns = (places // width).numpy(), (places % width).numpy()
        self.rows = CompressedRows(
            _starts(rows, n_rows),
            columns.astype(np.int32, copy=False),
            self.values.data.numpy(),
            width,
        )
        self._by_column: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        self.update_()

    @torch.no_grad()
    def update_(self) -> None:
        """Write the entries to the dense matrix, and find those that are not zero."""
        from wirework.nn.kernels.compiled.sparse_products import write_entries

        dense, before = self.weight.detach().numpy(), self.nonzero_rows
        # The matrix is not in cache: only what may change is written.
        write_entries(before.starts, before.columns, np.zeros_like(before.values), dense)
        self.nonzero_rows = without_zeros(self.rows)
        write_entries(*self.nonzero_rows[:3], dense)
        self.nonzero_columns = transposed(self.nonzero_rows)
        """Its transpose, (D, M)."""

    def neurons(self, floor_dim: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return where each neuron's entries start, and the entries neuron by neuron.

        Args:
            floor_dim: 0 if the rows of the matrix are neurons, 1 if its columns are.
        """
        if floor_dim == 0:
            return self.rows.starts, np.arange(len(self.values), dtype=np.int32)
        if self._by_column is None:
            columns = self.rows.columns
            order = np.argsort(columns, kind="stable").astype(np.int32)
            self._by_column = _starts(columns, self.rows.width), order
        return self._by_column

    def explore(self, gradient: Tensor) -> Tensor:
        """Add to the dense gradient; return its entries.

        Args:
            gradient: (M, D).
        """
        gradient = gradient.contiguous()
        self.explored = gradient if self.explored is None else self.explored + gradient
        return gradient.view(-1)[self.places]


def live_linear(x: Tensor, live: LiveWeight, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T + bias`, with gradients for `live.values`.

    Args:
        x: (..., D) float32 on the CPU.
        live: entries of (M, D).
        bias: (M,).

    Returns:
        (..., M).
    """
    tokens = x.reshape(-1, x.shape[-1])
    out: Tensor = _LiveLinear.apply(tokens, live.values, bias, live)  # type: ignore[no-untyped-call]
    return out.reshape(*x.shape[:-1], -1)


def live_embedding(tokens: Tensor, live: LiveWeight) -> Tensor:
    """Return the rows of the matrix at tokens, with gradients for `live.values`.

    Args:
        tokens: (...) int64.
        live: entries of (V, D).

    Returns:
        (..., D).
    """
    out: Tensor = _LiveEmbedding.apply(tokens, live.values, live)  # type: ignore[no-untyped-call]
    return out


class _LiveLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,  # noqa: ARG004 - the leaf that gets the gradient
        bias: Tensor | None,
        live: LiveWeight,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.live = live
        return sparse_product(x, live.nonzero_rows, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), live = ctx.saved_tensors, ctx.live
        grad = grads[0].contiguous()
        to_x, _, to_bias, _ = ctx.needs_input_grad
        across = live.nonzero_columns if to_x else None
        if live.is_exploring:
            return (
                sparse_product(grad, across) if across is not None else None,
                live.explore(weight_gradient(grad, x)),
                grad.sum(0) if to_bias else None,
                None,
            )
        gradients = layer_gradients(grad, x, live.rows, across=across, with_bias=to_bias)
        return *gradients, None


class _LiveEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        values: Tensor,  # noqa: ARG004 - the leaf that gets the gradient
        live: LiveWeight,
    ) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.live = live
        return F.embedding(tokens, live.weight.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (tokens,), live = ctx.saved_tensors, ctx.live
        ids, grad = tokens.flatten(), grads[0].contiguous().flatten(0, -2)
        if live.is_exploring:
            dense = torch.zeros_like(live.weight).index_add_(0, ids, grad)
            return None, live.explore(dense), None
        from wirework.nn.kernels.compiled.sparse_products import embedding_gradients

        out = torch.empty(len(live.places))
        embedding_gradients(
            ids.numpy(), grad.numpy(), live.rows.starts, live.rows.columns, out.numpy()
        )
        return None, out, None


@torch.no_grad()
def keep_largest_entries_(live: LiveWeight, k: int, floor: int, floor_dim: int | None) -> None:
    """Set all but k entries to zero: those of largest magnitude, with a floor for each neuron.

    The result is that of `Projection.keep_` on the dense matrix.

    Args:
        live: entries; `values` and the dense matrix are changed.
        k: number of entries to keep.
        floor: fewest entries of each neuron; 0 for none.
        floor_dim: 0 if the rows of the matrix are neurons, 1 if its columns are, None for none.

    Raises:
        ValueError: an entry is NaN.

    Source: Gao et al. 2025, sec. 2.1, App. A.2.
    """
    from wirework.nn.kernels.compiled.entry_floor import mark_largest_of_neurons

    values = live.rows.values
    if np.isnan(values).any():
        raise ValueError("projection got NaN, which has no rank")
    if floor and floor_dim is not None:
        is_protected = np.zeros(len(values), np.bool_)
        mark_largest_of_neurons(values, *live.neurons(floor_dim), floor, is_protected)
        # A neuron with fewer entries than the floor has zeros for the others.
        n_neurons, width = live.weight.shape if floor_dim == 0 else live.weight.t().shape
        others = np.where(is_protected, np.float32(0), values)
        _keep_largest_(others, k - n_neurons * min(floor, width))
        np.copyto(values, others, where=~is_protected)
    else:
        _keep_largest_(values, k)
    live.update_()


def _keep_largest_(values: NDArray[np.float32], k: int) -> None:
    """Set all but the k entries of largest magnitude of (E,) to zero, ties to the lower index."""
    from wirework.nn.kernels.compiled.selection import select_rows

    if k <= 0:
        values[:] = 0
    elif k < len(values):
        bits = values.view(np.int32)
        magnitude, infinity = np.int32(0x7FFFFFFF), np.float32(np.inf).view(np.int32)
        mask = np.empty((1, -(-len(values) // 8)), np.uint8)
        select_rows(bits, len(values), k, magnitude, infinity, bits.reshape(1, -1), mask)


def with_candidates(weight: Tensor, scores: Tensor, n_candidates: int) -> Tensor:
    """Return the flat indices of the nonzero weights and the candidates, ascending.

    Args:
        weight: (M, D) float32 on the CPU.
        scores: (M, D) float32, not negative.
        n_candidates: number of zero weights of largest score to add; ties to the lower index.

    Returns:
        (E,) int64; all indices, if there are no more zero weights than candidates.
    """
    from wirework.nn.kernels.compiled.candidates import count_scores, mark_above

    weights, sizes = (t.detach().contiguous().view(-1).numpy() for t in (weight, scores))
    bits = sizes.view(np.int32)
    counts = np.zeros(1 << 15, np.int64)
    count_scores(weights, bits, counts)
    at_least = counts[::-1].cumsum()[::-1]  # scores with these upper bits or higher ones
    if n_candidates >= at_least[0]:
        return torch.arange(len(weights))
    upper = int(np.count_nonzero(at_least > n_candidates)) - 1
    marked, places = np.empty(len(weights), np.bool_), np.empty(counts[upper], np.int64)
    mark_above(weights, bits, upper, marked, places)
    room = n_candidates - int(at_least[upper] - counts[upper])
    marked[places[largest(sizes[places], room)]] = True
    return torch.from_numpy(np.flatnonzero(marked))


def largest(sizes: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Return a mask of the k largest of (E,) sizes, ties to the lower index; all if k >= E."""
    if k == 0 or k >= len(sizes):
        return np.full(len(sizes), k > 0)
    threshold = np.partition(sizes, len(sizes) - k)[len(sizes) - k]
    chosen: NDArray[np.bool_] = sizes > threshold
    ties = np.flatnonzero(sizes == threshold)
    chosen[ties[: k - np.count_nonzero(chosen)]] = True
    return chosen


def _starts(groups: NDArray[np.integer[Any]], n_groups: int) -> NDArray[np.int32]:
    """Return where each group starts among ascending members, and their number: (G + 1,)."""
    counts = np.bincount(groups, minlength=n_groups)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
