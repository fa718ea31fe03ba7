"""Sparsity pattern of an (N, U) matrix, and matrix products restricted to its entries.

Where numba is there, compiled kernels add up values and rows (`compiled/sparse_pattern.py`).

Shapes: N tokens, U units, S entries of the pattern, D channels.
"""

import warnings
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece

_LANES = 16  # of the compiled kernels, whose modules cannot be imported without numba
_CACHED = 1 << 16  # sums that stay in cache, 256 KB; of more, sums over sorted entries are faster


class SparsePattern:
    """The entries (token, unit) of an (N, U) matrix that may be nonzero.

    Args:
        tokens: (S,) int64 rows, ascending.
        units: (S,) int64 columns, ascending within a token.
        shape: N and U.
    """

    def __init__(self, tokens: Tensor, units: Tensor, shape: tuple[int, int]) -> None:
        self.tokens, self.units, self.shape = tokens, units, shape
        counts = torch.bincount(tokens, minlength=shape[0])
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def spread(self, values: Tensor) -> Tensor:
        """Return (N, U) with the values (S,) at the entries of the pattern, zero elsewhere."""
        dense = values.new_zeros(self.shape[0] * self.shape[1])
        return dense.scatter(0, self.tokens * self.shape[1] + self.units, values).view(self.shape)

    def of_tokens(self, values: Tensor) -> Tensor:
        """Return (S,): for each entry the value of its token, of (N,)."""
        return values.index_select(0, self.tokens)  # several times faster than []

    def of_units(self, values: Tensor) -> Tensor:
        """Return (S,): for each entry the value of its unit, of (U,)."""
        return values.index_select(0, self.units)

    def products(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return (S,): entries of the product of (N, D) and the transpose of (U, D)."""
        _drop_beta_warning()
        zeros = x.new_zeros(len(self.units))
        pattern = torch.sparse_csr_tensor(
            self._starts, self.units, zeros, self.shape, check_invariants=False
        )
        values: Tensor = torch.sparse.sampled_addmm(pattern, x, weight.t(), beta=0).values()
        return values

    def sum_rows_by_token(self, weight: Tensor, values: Tensor) -> Tensor:
        """Return (N, D): for each token the sum of its units' rows of (U, D), times values (S,)."""
        return F.embedding_bag(
            self.units, weight, self._starts[:-1], per_sample_weights=values, mode="sum"
        )

    def sum_rows_by_unit(self, x: Tensor, values: Tensor) -> Tensor:
        """Return (U, D): for each unit the sum of its tokens' rows of (N, D), times values (S,)."""
        width = x.shape[1]
        fits = self.shape[1] * width <= _CACHED and not width % _LANES and x.dtype == torch.float32
        if fits and compiled.is_available():
            return self._sum_rows_compiled(x.contiguous(), values)
        order, tokens, starts = self._order_by_unit
        weights = values.index_select(0, order)
        return F.embedding_bag(tokens, x, starts, per_sample_weights=weights, mode="sum")

    def sum_by_token(self, values: Tensor) -> Tensor:
        """Return (N,): the sum of the values (S,) of each token."""
        if not compiled.is_available():
            return values.new_zeros(self.shape[0]).index_add_(0, self.tokens, values)
        from wirework.nn.kernels.compiled.sparse_pattern import sum_by_token

        sums = values.new_empty(self.shape[0])
        sum_by_token(self._starts.numpy(), values.detach().numpy(), sums.numpy())
        return sums

    def sum_by_unit(self, values: Tensor) -> Tensor:
        """Return (U,): the sum of the values (S,) of each unit."""
        return values.new_zeros(self.shape[1]).index_add_(0, self.units, values)

    def _sum_rows_compiled(self, x: Tensor, values: Tensor) -> Tensor:
        """Return `sum_rows_by_unit` of float32, (U, D), without a sort; D is a multiple of 16."""
        from wirework.nn.kernels.compiled.sparse_pattern import sum_rows_by_unit

        width, sums = x.shape[1], x.new_empty(self.shape[1], x.shape[1])
        step = max(1, width // _LANES // torch.get_num_threads()) * _LANES
        arrays = (self._starts, self.units, values, x.view(-1))
        starts, units, weights, rows = (t.detach().numpy() for t in arrays)
        out = sums.view(-1).numpy()

        def work(part: slice) -> None:
            begin, end = (min(width, number * step) for number in (part.start, part.stop))
            sum_rows_by_unit(starts, units, weights, rows, width, begin, end, out)

        each_piece(-(-width // step), 1 << 30, work)
        return sums

    @cached_property
    def _order_by_unit(self) -> tuple[Tensor, Tensor, Tensor]:
        """Entries sorted by unit and their tokens, (S,) each, and the start of each unit, (U,)."""
        units = self.units.numpy()
        narrow = units.astype(np.uint16) if self.shape[1] <= 1 << 16 else units  # uses radix sort
        order = torch.from_numpy(np.argsort(narrow, kind="stable"))
        counts = torch.bincount(self.units, minlength=self.shape[1])
        return order, self.tokens.index_select(0, order), counts.cumsum(0) - counts


@cache
def _drop_beta_warning() -> None:
    """Trigger and drop torch's warning that CSR tensors are in beta, which it gives once."""
    none = torch.zeros(0, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(none.new_zeros(1), none, none, (0, 0), check_invariants=False)
