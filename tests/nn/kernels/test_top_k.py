"""AbsTopK: against the sort that defines it, and its gradient against the entries it kept."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from present import present
from torch import Tensor

from wirework.nn.kernels.top_k import abs_top_k, abs_top_k_reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

# Few distinct magnitudes, so that ties, both zeros and infinities meet in nearly every row.
VALUES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-7, -6e-8, 60000.0, math.inf, -math.inf]


@st.composite
def rows_and_k(draw: st.DrawFn) -> tuple[Tensor, int]:
    """A tensor of any shape and an admissible k."""
    width = draw(st.integers(1, 40) | st.sampled_from([511, 512, 513, 700, 1024, 1500]))
    shape = (*draw(st.lists(st.integers(1, 4), max_size=2)), width)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tied = generator.choice(VALUES, shape)
    smooth = generator.standard_normal(shape)
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    x = np.where(generator.random(shape) < share, tied, smooth)
    dtype = draw(st.sampled_from([*DTYPES, torch.float64]))
    return torch.from_numpy(np.asarray(x)).to(dtype), draw(st.integers(1, width))


@given(rows_and_k())
@settings(max_examples=200, deadline=None)
def test_keeps_what_the_sort_keeps(case):
    x, k = case
    kept = abs_top_k(x, k)
    assert kept.dtype == x.dtype
    assert torch.equal(kept, abs_top_k_reference(x, k))


def test_worked_by_hand():
    x = torch.tensor([[1.0, -3.0, 3.0, 0.5], [-2.0, 2.0, -2.0, 2.0], [0.0, -0.0, 0.0, 1.0]])
    expected = torch.tensor([[0.0, -3.0, 3.0, 0.0], [-2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert torch.equal(abs_top_k(x, 2), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("width", "k"), [(512, 128), (600, 150), (1000, 999), (1300, 512), (1300, 513), (2048, 700)]
)
def test_wide_rows(dtype, width, k):
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    kept = abs_top_k(x, k)
    assert torch.equal(kept, abs_top_k_reference(x, k))
    assert ((kept != 0).sum(-1) == k).all()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_without_compiled_kernels_the_same_is_kept(monkeypatch, dtype):
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).to(dtype).round()
    graded = [x.clone().requires_grad_() for _ in range(2)]
    kept = abs_top_k(graded[0], 7)
    kept.pow(3).sum().backward()
    monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)
    by_sort = abs_top_k(graded[1], 7)
    by_sort.pow(3).sum().backward()
    assert torch.equal(kept, by_sort)
    assert torch.equal(graded[0].grad, graded[1].grad)


def test_a_very_wide_row():
    x = torch.randn(1, (1 << 16) + 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    for k in (1, 300, 20000):
        assert torch.equal(abs_top_k(x, k), abs_top_k_reference(x, k))


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_in_several_pieces_and_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x = torch.randn(9000, 130, generator=torch.Generator().manual_seed(0))
        assert torch.equal(abs_top_k(x, 32), abs_top_k_reference(x, 32))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_contiguous(dtype):
    x = torch.randn(30, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(abs_top_k(x.permute(2, 1, 0), 7), abs_top_k_reference(x.permute(2, 1, 0), 7))


@given(rows_and_k())
@settings(max_examples=60, deadline=None)
def test_gradient_passes_at_exactly_the_k_kept(case):
    x, k = case
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    expected = torch.zeros_like(x).scatter(-1, order, 1.0)
    leaf = x.clone().requires_grad_()
    abs_top_k(leaf, k).backward(torch.ones_like(x))
    assert torch.equal(leaf.grad, expected)
    assert (leaf.grad.sum(-1) == k).all()


def test_input_is_left_as_it_was():
    x = torch.randn(3, 9)
    before = x.clone()
    abs_top_k(x, 2)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("k", [1, 3])
def test_nan_is_refused(dtype, k):
    x = torch.tensor([[1.0, 2.0, 3.0], [math.inf, math.nan, -math.inf]], dtype=dtype)
    with pytest.raises(ValueError, match="NaN, which has no rank"):
        abs_top_k(x, k)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the width 4, got {k}"):
        abs_top_k(torch.ones(2, 4), k)


@pytest.mark.parametrize("x", [torch.tensor(1.0), torch.arange(4)])
def test_what_has_no_rows_of_floats_is_refused(x):
    with pytest.raises(ValueError, match="rows of floats"):
        abs_top_k(x, 2)


def test_second_derivative_raises_instead_of_being_zero():
    x = torch.randn(2, 9, requires_grad=True)
    (first,) = torch.autograd.grad(abs_top_k(x, 3).pow(3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


FORKS = """
import os, torch
from wirework.nn import abs_top_k
torch.set_num_threads(2)
x = torch.randn(9000, 130)
kept = abs_top_k(x, 9)
torch.set_num_threads(1)  # torch's own threads do not survive a fork
child = os.fork()
if not child:
    torch.set_num_threads(2)
    os._exit(0 if torch.equal(abs_top_k(x, 9), kept) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_has_threads_of_its_own():
    words = [sys.executable, "-W", "ignore", "-c", FORKS]
    assert subprocess.run(words, timeout=60).returncode == 0


def test_no_rows_give_no_rows():
    assert abs_top_k(torch.ones(0, 4), 2).shape == (0, 4)


def test_a_gradient_whose_entries_are_one_number_in_memory():
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    abs_top_k(x, 7).sum().backward()  # the gradient of a sum is expanded from one number
    assert (present(x.grad).sum(-1) == 7).all()
    assert set(present(x.grad).unique().tolist()) == {0.0, 1.0}
