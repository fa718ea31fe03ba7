"""Sparsity pattern of an (N, U) matrix, and matrix products restricted to its entries.

Shapes: N tokens, U units, S entries of the pattern, D channels.
"""

import warnings
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


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
        order, tokens, starts = self._order_by_unit
        weights = values.index_select(0, order)
        return F.embedding_bag(tokens, x, starts, per_sample_weights=weights, mode="sum")

    def sum_by_token(self, values: Tensor) -> Tensor:
        """Return (N,): the sum of the values (S,) of each token."""
        return values.new_zeros(self.shape[0]).index_add_(0, self.tokens, values)

    def sum_by_unit(self, values: Tensor) -> Tensor:
        """Return (U,): the sum of the values (S,) of each unit."""
        return values.new_zeros(self.shape[1]).index_add_(0, self.units, values)

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
