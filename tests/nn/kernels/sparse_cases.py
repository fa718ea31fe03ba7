"""Random matrices with zeros, and their compressed rows, for tests of sparse kernels."""

import torch
from torch import Tensor

from wirework.nn.kernels.sparse_linear import CompressedRows, compressed_rows


def drawn(*shape: int, seed: int = 0, density: float = 1.0) -> Tensor:
    """Return normal numbers, each 0 with a probability of 1 - density."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator)
    return torch.where(torch.rand(*shape, generator=generator) < density, values, 0)


def rows_of(weight: Tensor) -> CompressedRows:
    """Return the compressed rows of a matrix."""
    return compressed_rows(weight, int(weight.count_nonzero()))


def close(found: Tensor, wanted: Tensor) -> None:
    """Assert that two tensors differ by rounding only."""
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
