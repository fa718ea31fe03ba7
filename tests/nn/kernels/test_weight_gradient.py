"""Gradients of weights that leave out zeros: against dense products, and when they are used."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_cases import close, drawn

from wirework import fastest
from wirework.nn.kernels import weight_gradient as module
from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.weight_gradient import sum_of_outer_products, weight_gradient

pytestmark = pytest.mark.usefixtures("one_thread")


def choose(way, monkeypatch):
    """Let every measurement have one result; return the list that the questions are added to."""
    questions = []

    def chosen(question, default, ways, clock=None):
        questions.append(question)
        return way if question.startswith("weight gradient") and "/" in question else default

    monkeypatch.setattr(fastest, "choose", chosen)
    return questions


def test_sums_worked_by_hand():
    sparse = torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 0.0]])
    dense = torch.zeros(3, 64)
    dense[:, 0], dense[:, 63] = torch.tensor([1.0, 10, 100]), torch.tensor([2.0, 3, 4])
    out = sum_of_outer_products(sparse, dense)
    assert out[:, 0].tolist() == [21, -10]
    assert out[:, 63].tolist() == [8, -3]
    assert not out[:, 1:63].any()


@given(
    n_tokens=st.integers(1, 9) | st.sampled_from([63, 64, 65, 200]),
    n_channels=st.integers(1, 40),
    n_blocks=st.integers(1, 3),
    density=st.sampled_from([0, 0.01, 0.25, 1]),
)
@settings(max_examples=40, deadline=None)
def test_all_sizes_and_densities_agree_with_a_dense_product(
    n_tokens, n_channels, n_blocks, density
):
    sparse = drawn(n_tokens, n_channels, density=density)
    dense = drawn(n_tokens, 64 * n_blocks, seed=1)
    close(sum_of_outer_products(sparse, dense), sparse.t() @ dense)


def test_infinite_and_undefined_entries_are_not_left_out():
    sparse, dense = torch.zeros(2, 2), torch.ones(2, 64)
    sparse[0] = torch.tensor([torch.inf, torch.nan])
    out = sum_of_outer_products(sparse, dense)
    assert (out[0] == torch.inf).all()
    assert out[1].isnan().all()


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    sparse, dense = drawn(3000, 200, density=0.3), drawn(3000, 64 * 5, seed=1)
    alone = sum_of_outer_products(sparse, dense)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(sum_of_outer_products(sparse, dense), alone)


@pytest.mark.parametrize("side", ["input", "gradient"])
def test_the_sparse_operand_is_found(side, monkeypatch):
    questions = choose("sparse", monkeypatch)
    x, grad = drawn(4, 64, 128), drawn(4, 64, 192, seed=1)
    (x if side == "input" else grad).mul_(drawn(4, 64, 1, seed=2) > 1)
    close(weight_gradient(grad, x), grad.flatten(0, 1).t() @ x.flatten(0, 1))
    sizes = "128x256" if side == "input" else "256x128"
    assert any(question.startswith(f"weight gradient {sizes} 1/") for question in questions)


def test_of_two_sparse_operands_the_one_with_fewer_channels_is_taken(monkeypatch):
    questions = choose("sparse", monkeypatch)
    x, grad = drawn(300, 64, density=0.25), drawn(300, 256, seed=1, density=0.25)
    close(weight_gradient(grad, x), grad.t() @ x)
    assert "weight gradient 64x256 1/2" in questions or "weight gradient 64x256 1/4" in questions


@pytest.mark.parametrize("why", ["dense", "slower", "odd width", "few tokens", "not compiled"])
def test_dense_products_are_used_where_zeros_do_not_pay(why, monkeypatch):
    choose("dense" if why == "slower" else "sparse", monkeypatch)
    monkeypatch.setattr(module, "sum_of_outer_products", None)  # a call would fail
    if why == "not compiled":
        monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)
    n_tokens = 100 if why == "few tokens" else 300
    width = 100 if why == "odd width" else 128
    x = drawn(n_tokens, width, density=1 if why == "dense" else 0.25)
    grad = drawn(n_tokens, width, seed=1)
    close(weight_gradient(grad, x), grad.t() @ x)


def test_a_linear_layer_leaves_out_zeros(monkeypatch):
    choose("sparse", monkeypatch)
    calls = []

    def counted(sparse, dense):
        calls.append(sparse.shape)
        return sum_of_outer_products(sparse, dense)

    monkeypatch.setattr(module, "sum_of_outer_products", counted)
    x = drawn(2, 200, 64, density=0.25)
    weight = drawn(128, 64, seed=1).requires_grad_()
    linear(x, weight).square().sum().backward()
    wanted = drawn(128, 64, seed=1).requires_grad_()
    F.linear(x, wanted).square().sum().backward()
    torch.testing.assert_close(weight.grad, wanted.grad, rtol=1e-4, atol=1e-2)
    assert calls == [(400, 64)]
