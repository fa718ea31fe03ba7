"""Gradients of a layer of which only some entries are trained: against dense products."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from present import present
from sparse_cases import close, drawn, rows_of

from wirework.nn.kernels.layer_gradients import layer_gradients
from wirework.nn.kernels.sparse_linear import transposed

pytestmark = pytest.mark.usefixtures("one_thread")

sizes = st.integers(1, 20) | st.sampled_from([63, 64, 65, 130])


def test_gradients_worked_by_hand():
    weight = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    x, grad = torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    rows = rows_of(weight)
    found = layer_gradients(grad, x, rows, across=transposed(rows), with_bias=True)
    assert present(found.x).tolist() == [[6.0, 2.0], [15.0, 8.0]]
    assert found.entries.tolist() == [1 * 10 + 4 * 20, 2 * 1 + 5 * 2]
    assert present(found.bias).tolist() == [5.0, 7.0, 9.0]


@given(sizes, sizes, sizes, st.sampled_from([0.0, 0.01, 0.1, 1.0]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_all_sizes_and_densities(n_tokens, width, n_outputs, density, seed):
    x, grad = drawn(n_tokens, width, seed=seed), drawn(n_tokens, n_outputs, seed=seed + 1)
    weight = drawn(n_outputs, width, seed=seed, density=density)
    rows = rows_of(weight)
    found = layer_gradients(grad, x, rows, across=transposed(rows), with_bias=True)
    close(found.x, grad @ weight)
    close(found.entries, (grad.t() @ x)[weight != 0])
    close(found.bias, grad.sum(0))


def test_only_what_is_wanted_is_returned():
    found = layer_gradients(drawn(5, 3), drawn(5, 4), rows_of(drawn(3, 4)))
    assert found.x is None
    assert found.bias is None


def test_no_tokens():
    rows = rows_of(drawn(3, 5))
    empty = torch.empty(0, 3), torch.empty(0, 5)
    found = layer_gradients(*empty, rows, across=transposed(rows), with_bias=True)
    assert present(found.x).shape == (0, 5)
    assert found.entries.tolist() == [0.0] * 15
    assert present(found.bias).tolist() == [0.0] * 3


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(threads, monkeypatch):
    x, grad, weight = drawn(1300, 40), drawn(1300, 130), drawn(130, 40, density=0.2)
    rows = rows_of(weight)
    alone = layer_gradients(grad, x, rows, across=transposed(rows), with_bias=True)
    monkeypatch.setattr("wirework.nn.kernels.pieces._PIECE", 1 << 14)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = layer_gradients(grad, x, rows, across=transposed(rows), with_bias=True)
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
