"""Cases of the Triton kernels in Triton's interpreter; `test_triton_kernels.py` starts them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from top_k_cases import rows_and_k
from torch import Tensor

from wirework.nn import abs_top_k
from wirework.nn.kernels import device_top_k, top_k
from wirework.nn.kernels.top_k import abs_top_k_reference
from wirework.nn.kernels.triton import abs_top_k as kernels
from wirework.nn.kernels.triton.sparse_product import (
    EntryPositions,
    entry_positions,
    gradient_at_nonzeros,
    product_of_channels,
    sparse_product,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTHS = st.integers(1, 20) | st.sampled_from([64, 100])


@given(rows_and_k(DTYPES, WIDTHS, most_rows=3, with_nan=True))
@settings(max_examples=40, deadline=None)
def test_select_keeps_what_torch_keeps(case):
    x, k = case
    kept, mask = kernels.select(x, k)
    expected, expected_mask = device_top_k.select_by_torch(x, k)
    assert torch.equal(mask, expected_mask)
    assert kept.dtype == x.dtype
    assert torch.equal(kept.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_rows_and_rows_across_memory(dtype):
    x = torch.randn(1500, 2, generator=torch.Generator().manual_seed(0)).to(dtype).t()
    for k in (1, 400, 1499):
        kept, mask = kernels.select(x, k)
        assert torch.equal(kept, abs_top_k_reference(x, k))
        assert (mask.sum(-1) == k).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_passes_at_the_mask(dtype):
    grad = torch.randn(3, 700, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.rand(3, 700, generator=torch.Generator().manual_seed(1)) < 0.3
    grad[0, 0], mask[0, 0] = math.inf, False
    assert torch.equal(kernels.pass_kept(grad, mask), torch.where(mask, grad, 0))


def test_abs_top_k_uses_them_if_the_variable_says_so(monkeypatch):
    monkeypatch.setattr(top_k, "_by_torch", lambda x: True)
    monkeypatch.setattr(device_top_k, "select_by_torch", lambda x, k: pytest.fail("torch"))
    leaf = torch.tensor([[1.0, -3.0, 3.0, 0.5]]).requires_grad_()
    monkeypatch.setenv("WIREWORK_TRITON", "0")
    with pytest.raises(pytest.fail.Exception):
        abs_top_k(leaf, 2)
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    kept = abs_top_k(leaf, 2)
    kept.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert torch.equal(kept.detach(), torch.tensor([[0.0, -3.0, 3.0, 0.0]]))
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.tensor([[0.0, 2.0, 3.0, 0.0]]))


def sparse(height: int, width: int, density: float) -> tuple[Tensor, Tensor, EntryPositions]:
    """Return a matrix, its nonzeros and their positions."""
    generator = torch.Generator().manual_seed(height)
    weight = torch.randn(height, width, generator=generator)
    weight *= torch.rand(height, width, generator=generator) < density
    rows, columns = weight.nonzero().unbind(1)
    starts = torch.zeros(height + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(rows, minlength=height).cumsum(0)
    return weight, weight[rows, columns], entry_positions(starts, columns, width)


def test_a_product_by_hand():
    # Rows: (0, 2, 0), empty, (3, 0, -1).
    starts, columns = torch.tensor([0, 1, 1, 3]), torch.tensor([1, 0, 2])
    pattern = entry_positions(starts, columns, 3)
    values = torch.tensor([2.0, 3.0, -1.0])
    x = torch.tensor([[1.0, 10.0, 100.0], [2.0, 0.0, 4.0]])
    out = product_of_channels(x.t().contiguous(), pattern.starts, pattern.columns, values)
    assert torch.equal(out, torch.tensor([[20.0, 0.0], [0.0, 0.0], [-97.0, 2.0]]))
    grad = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 3.0]])
    to_values = gradient_at_nonzeros(grad, x.t().contiguous(), pattern)
    assert torch.equal(to_values, torch.tensor([10.0, 6.0, 12.0]))


@pytest.mark.parametrize(("height", "width", "density"), [(9, 13, 0.3), (20, 7, 0.05), (4, 4, 0)])
@pytest.mark.parametrize("shape", [(3, 100), (257,)])
def test_product_and_gradients_are_those_of_the_dense_matrix(height, width, density, shape):
    weight, values, pattern = sparse(height, width, density)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, width, generator=generator).requires_grad_()
    leaf, dense_x = values.clone().requires_grad_(), x.detach().clone().requires_grad_()
    out = sparse_product(x, leaf, pattern)
    weight.requires_grad_()
    expected = dense_x @ weight.t()
    grad = torch.randn(expected.shape, generator=generator)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, dense_x.grad)
    assert weight.grad is not None
    rows, columns = pattern.rows.long(), pattern.columns.long()
    torch.testing.assert_close(leaf.grad, weight.grad[rows, columns], rtol=1e-5, atol=1e-4)


def test_a_narrow_type_stays_and_sums_are_wide():
    weight, values, pattern = sparse(9, 13, 0.5)
    x = torch.randn(40, 13, generator=torch.Generator().manual_seed(1)).bfloat16()
    out = sparse_product(x, values, pattern)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), x.float() @ weight.t(), rtol=1 / 64, atol=1e-2)


def test_only_the_needed_gradients_are_computed(monkeypatch):
    _, values, pattern = sparse(9, 13, 0.5)
    name = "wirework.nn.kernels.triton.sparse_product.gradient_at_nonzeros"
    monkeypatch.setattr(name, lambda *args: pytest.fail("computed"))
    x = torch.randn(5, 13).requires_grad_()
    sparse_product(x, values, pattern).sum().backward()
    assert x.grad is not None
