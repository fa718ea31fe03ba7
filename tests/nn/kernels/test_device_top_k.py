"""AbsTopK on a device, here on tensors of the CPU, against the sort that defines it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from top_k_cases import rows_and_k

from wirework.nn import abs_top_k, device_reads
from wirework.nn.device_reads import device_reads_deferred
from wirework.nn.kernels import top_k
from wirework.nn.kernels.device_top_k import has_nan, infinity_key, largest, magnitude_keys, select
from wirework.nn.kernels.top_k import abs_top_k_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
WIDTHS = st.integers(1, 40) | st.sampled_from([256, 1023])


@given(rows_and_k(DTYPES, WIDTHS, most_rows=4))
@settings(max_examples=200, deadline=None)
def test_keeps_what_the_sort_keeps(case):
    x, k = case
    kept, mask = select(x, k)
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    assert kept.dtype == x.dtype
    assert torch.equal(kept, abs_top_k_reference(x, k))
    assert torch.equal(mask, torch.zeros_like(mask).scatter(-1, order, True))


def test_worked_by_hand():
    x = torch.tensor([[1.0, -3.0, 3.0, 0.5], [-2.0, 2.0, -2.0, 2.0], [0.0, -0.0, 0.0, 1.0]])
    for k, expected in [
        (1, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
        (2, [[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]),
        (3, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 1]]),
    ]:
        assert torch.equal(select(x, k)[1].int(), torch.tensor(expected).int())


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_order_magnitudes_with_nan_on_top(dtype):
    x = torch.tensor([0.0, -0.0, 6e-8, -1.0, 1.5, -60000.0, math.inf, -math.inf], dtype=dtype)
    keys = magnitude_keys(x)
    assert (keys.diff() >= 0).all()
    assert keys[0] == keys[1]
    assert keys[-1] == keys[-2] == infinity_key(dtype)
    assert not has_nan(keys, dtype)
    for nan in (math.nan, -math.nan):
        assert has_nan(magnitude_keys(torch.tensor([1.0, nan], dtype=dtype)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_nan_is_always_kept(dtype, k):
    x = torch.tensor([math.inf, 3.0, math.nan, -math.inf], dtype=dtype)
    assert select(x, k)[1][2]


def test_rows_may_lie_across_memory():
    keys = torch.randint(0, 5, (7, 9), generator=torch.Generator().manual_seed(0))
    for k in (2, 7):
        assert torch.equal(largest(keys.t(), k), largest(keys.t().contiguous(), k))


def test_the_gradient_passes_at_the_kept_entries(monkeypatch):
    monkeypatch.setattr(top_k, "_by_torch", lambda x: True)
    leaf = torch.tensor([[1.0, -3.0, 3.0, 0.5], [-2.0, 2.0, -2.0, 2.0]]).requires_grad_()
    abs_top_k(leaf, 2).backward(torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]))
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.tensor([[0.0, 2.0, 3.0, 0.0], [5.0, 6.0, 0.0, 0.0]]))


class TestChecksOfValues:
    def test_a_device_is_read_unless_the_caller_defers_it(self):
        # On the meta device every read of a value is an error: what a step on CUDA must not do.
        x = torch.ones(2, 8, device="meta")
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            abs_top_k(x, 3)
        with device_reads_deferred():
            assert abs_top_k(x, 3).shape == x.shape
            assert abs_top_k(x, 8).shape == x.shape
            assert abs_top_k(x[:0], 3).shape == (0, 8)
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            abs_top_k(x, 8)

    def test_the_cpu_is_always_read(self):
        for k in (1, 2):
            with device_reads_deferred(), pytest.raises(ValueError, match="NaN"):
                abs_top_k(torch.tensor([1.0, math.nan]), k)

    @pytest.mark.parametrize("k", [3, 8])
    def test_a_deferred_nan_is_in_the_scalars(self, monkeypatch, k):
        monkeypatch.setattr(top_k, "_by_torch", lambda x: True)
        monkeypatch.setattr(device_reads, "may_read", lambda x: False)
        x = torch.full((2, 8), -math.inf)
        with device_reads_deferred() as scalars:
            abs_top_k(x, k)
            x[1, 4] = math.nan
            abs_top_k(x, k)
        assert [bool(scalar.isnan()) for scalar in scalars] == [False, True]
