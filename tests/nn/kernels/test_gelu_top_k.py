"""GELU with AbsTopK in one kernel: against GELU in float64, and against the two operations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wirework.nn.activation import activate
from wirework.nn.kernels import compiled
from wirework.nn.kernels.gelu_top_k import activate_like_top_k, activated_top_k
from wirework.nn.kernels.top_k import abs_top_k

needs_kernels = pytest.mark.skipif(not compiled.is_available(), reason="numba is not installed")


def gelu(x: Tensor) -> Tensor:
    """GELU by its definition, in float64."""
    x = x.double()
    return x * torch.special.log_ndtr(x).exp()  # `ndtr` has no digits below -8


def gelu_slope(x: Tensor) -> Tensor:
    """Derivative of GELU by its definition, in float64."""
    x = x.double()
    return torch.special.ndtr(x) + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def rows(count: int, width: int, seed: int) -> Tensor:
    """Normal numbers, (count, width)."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(
    st.integers(1, 5),
    st.integers(2, 40) | st.sampled_from([127, 128, 129, 700, 1024]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 1.0, 5.0]),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_keeps_the_largest_and_passes_their_gradient(count, width, seed, scale, data):
    k = data.draw(st.integers(1, width - 1))
    x = (scale * rows(count, width, seed)).requires_grad_()
    kept = activated_top_k(x, "gelu", k)
    grad = rows(count, width, seed + 1)
    kept.backward(grad)
    exact, is_kept = gelu(x.detach()), kept.detach() != 0
    assert (is_kept.sum(-1) <= k).all()
    dropped = exact.abs().where(~is_kept, 0).amax(-1)
    assert ((exact.abs() >= dropped[:, None] - 1e-6) | ~is_kept).all()
    torch.testing.assert_close(kept.detach().double(), exact * is_kept, rtol=3e-7, atol=3e-7)
    assert x.grad is not None
    expected = grad * gelu_slope(x.detach()) * is_kept
    torch.testing.assert_close(x.grad.double() * is_kept, expected, rtol=1e-6, atol=1e-6)


@needs_kernels
def test_every_magnitude_is_accurate():
    x = torch.cat([torch.linspace(-20, 20, 200_001), torch.logspace(-30, 30, 10_001)]).unsqueeze(0)
    width = x.shape[1]
    kept = activated_top_k(x, "gelu", width - 1)
    assert (kept.double() - gelu(x)).abs().div(gelu(x).abs() + 1e-7).max() < 3


def test_a_negative_tail_has_a_small_relative_error():
    x = torch.linspace(-5, -0.01, 1000).unsqueeze(0)
    kept = activated_top_k(x, "gelu", 999)
    chosen = kept != 0
    torch.testing.assert_close(kept[chosen].double(), gelu(x)[chosen], rtol=3e-6, atol=0)


@needs_kernels
def test_no_number_on_the_way_is_below_the_normal_ones():
    """Processors compute with subnormal numbers up to twenty times slower."""
    from wirework.nn.kernels.compiled import gelu as kernel

    tiny = torch.logspace(-45, 0, 1001)
    x = torch.cat([torch.linspace(-14, 14, 100_001), torch.tensor([-100.0, 100.0]), tiny, -tiny])
    for part in x.split(128):
        tail, density = torch.empty(128), torch.empty(128, dtype=torch.int32)
        kernel._normal(part.numpy(), tail.numpy(), density.numpy())
        for made in (tail, density.view(torch.float32)):
            assert made[: len(part)].min() >= torch.finfo(torch.float32).tiny
    assert not activate_like_top_k(x[x < -12.9], "gelu").any()
    assert activate_like_top_k(x[(x > -12.9) & (x < -0.01)], "gelu").all()
    assert not activate_like_top_k(x[x.abs() < 5e-38], "gelu").any()
    small = x[(x.abs() > 5e-38) & (x.abs() < 1e-15)]
    torch.testing.assert_close(activate_like_top_k(small, "gelu"), small / 2, rtol=3e-7, atol=0)


def test_infinity_is_kept():
    x = torch.tensor([[1.0, math.inf, -1e30, 2.0, 0.5]], requires_grad=True)
    kept = activated_top_k(x, "gelu", 2)
    kept.sum().backward()
    assert torch.equal(kept != 0, torch.tensor([[False, True, False, True, False]]))
    assert kept[0, 1] == math.inf
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 1], torch.tensor(1.0))


@pytest.mark.parametrize("value", [math.nan, -math.inf])  # GELU of -infinity is NaN
def test_nan_is_refused(value):
    x = torch.zeros(3, 64)
    x[1, 40] = value
    with pytest.raises(ValueError, match="AbsTopK got NaN"):
        activated_top_k(x, "gelu", 3)


def test_ties_go_to_the_lower_index():
    x = torch.tensor([[0.5, 2.0, 2.0, 2.0, -0.5], [0.0, 0.0, 1.0, 0.0, 0.0]], requires_grad=True)
    kept = activated_top_k(x, "gelu", 2)
    assert torch.equal(kept[0] != 0, torch.tensor([False, True, True, False, False]))
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[1] != 0, torch.tensor([True, False, True, False, False]))


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_functions_are_two_operations(activation, dtype):
    x = rows(3, 32, 0).to(dtype)
    expected = abs_top_k(activate(x, activation), 8)
    assert torch.equal(activated_top_k(x, activation, 8), expected)


@pytest.mark.parametrize("shape", [(0, 16), (2, 0, 16)])
def test_no_rows(shape):
    assert activated_top_k(torch.zeros(shape), "gelu", 4).shape == shape


def test_all_entries_kept_is_the_function_itself():
    x = rows(3, 32, 0)
    torch.testing.assert_close(activated_top_k(x, "gelu", 32), activate(x, "gelu"))


@pytest.mark.parametrize("k", [0, 33])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match="k must be between 1 and the width 32"):
        activated_top_k(rows(3, 32, 0), "gelu", k)


@needs_kernels
def test_only_the_derivatives_of_kept_entries_are_saved():
    x = rows(64, 256, 0).requires_grad_()
    saved: list[int] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t.nbytes)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        activated_top_k(x, "gelu", 64)
    assert sum(saved) == 64 * 64 * 4 + 64 * 256 // 8


def test_alone_the_function_has_the_same_bits():
    x = (3 * rows(4, 200, 0)).requires_grad_()
    alone = activate_like_top_k(x, "gelu")
    assert torch.equal(abs_top_k(alone, 50), activated_top_k(x, "gelu", 50))
    grad = rows(4, 200, 1)
    (to_x,) = torch.autograd.grad(alone, x, grad)
    expected = grad * gelu_slope(x.detach())
    torch.testing.assert_close(to_x.double(), expected, rtol=1e-6, atol=1e-6)


def test_rows_with_gaps_between_them():
    wide = rows(5, 96, 0)
    part = wide[:, 16:80]
    assert torch.equal(
        activated_top_k(part, "gelu", 16), activated_top_k(part.contiguous(), "gelu", 16)
    )
