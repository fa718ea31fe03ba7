"""A few units of each token, and matrix products that touch those alone.

Shapes: N tokens, U units, S places, D channels.
"""

import warnings
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Places:
    """Which units of which tokens.

    Args:
        tokens: (S,) int64, rising.
        units: (S,) int64, rising within a token.
        shape: N and U.
    """

    def __init__(self, tokens: Tensor, units: Tensor, shape: tuple[int, int]) -> None:
        self.tokens, self.units, self.shape = tokens, units, shape
        counts = torch.bincount(tokens, minlength=shape[0])
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def spread(self, values: Tensor) -> Tensor:
        """Return (N, U): the values (S,) at these places, zero elsewhere."""
        dense = values.new_zeros(self.shape[0] * self.shape[1])
        return dense.scatter(0, self.tokens * self.shape[1] + self.units, values).view(self.shape)

    def products(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return (S,): what (N, D) times the transpose of (U, D) is at these places."""
        _hush()
        zeros = x.new_zeros(len(self.units))
        pattern = torch.sparse_csr_tensor(
            self._starts, self.units, zeros, self.shape, check_invariants=False
        )
        found: Tensor = torch.sparse.sampled_addmm(pattern, x, weight.t(), beta=0).values()
        return found

    def by_token(self, weight: Tensor, values: Tensor) -> Tensor:
        """Return (N, D): a token's rows of (U, D), times the values (S,), summed."""
        return F.embedding_bag(
            self.units, weight, self._starts[:-1], per_sample_weights=values, mode="sum"
        )

    def by_unit(self, x: Tensor, values: Tensor) -> Tensor:
        """Return (U, D): a unit's rows of (N, D), times the values (S,), summed."""
        order, tokens, starts = self._by_unit
        return F.embedding_bag(tokens, x, starts, per_sample_weights=values[order], mode="sum")

    def sums_by_token(self, values: Tensor) -> Tensor:
        """Return (N,): the sum of a token's values (S,)."""
        return values.new_zeros(self.shape[0]).index_add_(0, self.tokens, values)

    def sums_by_unit(self, values: Tensor) -> Tensor:
        """Return (U,): the sum of a unit's values (S,)."""
        return values.new_zeros(self.shape[1]).index_add_(0, self.units, values)

    @cached_property
    def _by_unit(self) -> tuple[Tensor, Tensor, Tensor]:
        """Places sorted by unit, their tokens (both (S,)), and where each unit's begin, (U,)."""
        units = self.units.numpy()
        narrow = units.astype(np.uint16) if self.shape[1] <= 1 << 16 else units  # sorted by digits
        order = torch.from_numpy(np.argsort(narrow, kind="stable"))
        counts = torch.bincount(self.units, minlength=self.shape[1])
        return order, self.tokens[order], counts.cumsum(0) - counts


@cache
def _hush() -> None:
    """Draw torch's warning that CSR tensors are in beta, which it gives once, and drop it."""
    none = torch.zeros(0, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        torch.sparse_csr_tensor(none.new_zeros(1), none, none, (0, 0), check_invariants=False)
