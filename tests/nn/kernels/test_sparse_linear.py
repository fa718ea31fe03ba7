"""Products from compressed rows: against torch's dense ones, in value and gradient."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_cases import close, drawn, rows_of

from wirework import fastest
from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.kernels import sparse_linear
from wirework.nn.kernels.linear import Linear, linear
from wirework.nn.kernels.loss import next_token_loss
from wirework.nn.kernels.sparse_linear import (
    compressed_if_faster,
    compressed_rows,
    once_if_unchanged,
    sparse_product,
    transposed,
    unchanged_weights,
)


@pytest.fixture(autouse=True)
def always_sparse(monkeypatch, one_thread):
    """Take every matrix from its compressed rows, however small or dense."""
    monkeypatch.setenv(sparse_linear.VARIABLE, "1")
    monkeypatch.setattr(sparse_linear, "_MIN_SIZE", 0)


def test_compressed_rows_worked_by_hand():
    rows = rows_of(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 3.0]]))
    assert rows.starts.tolist() == [0, 1, 1, 3]
    assert rows.columns.tolist() == [1, 0, 2]
    assert rows.values.tolist() == [2.0, -1.0, 3.0]
    across = transposed(rows)
    assert across.starts.tolist() == [0, 1, 2, 3]
    assert across.columns.tolist() == [2, 0, 2]
    assert across.values.tolist() == [-1.0, 2.0, 3.0]


sizes = st.integers(1, 20) | st.sampled_from([63, 64, 65, 130])


@given(sizes, sizes, sizes, st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_products_with_a_matrix_and_its_transpose(tokens, width, outputs, density, seed):
    x, grad = drawn(tokens, width, seed=seed), drawn(tokens, outputs, seed=seed + 1)
    weight, bias = drawn(outputs, width, seed=seed, density=density), drawn(outputs)
    rows = rows_of(weight)
    close(sparse_product(x, rows, bias), F.linear(x, weight, bias))
    close(sparse_product(grad, transposed(rows)), grad @ weight)


def test_no_tokens():
    rows = rows_of(drawn(3, 5))
    assert sparse_product(torch.empty(0, 5), rows).shape == (0, 3)


def test_infinity_and_nan_reach_only_the_outputs_that_read_them():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[torch.nan, 1.0], [torch.inf, 2.0]])
    out = sparse_product(x, rows_of(weight))
    assert out[:, 1].tolist() == [1.0, 2.0]
    assert out[0, 0].isnan()
    assert out[1, 0] == torch.inf


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_threads_or_other_tokens(threads, monkeypatch):
    x, weight = drawn(700, 40), drawn(130, 40, density=0.2)
    rows = rows_of(weight)
    alone = sparse_product(x, rows)
    monkeypatch.setattr("wirework.nn.kernels.pieces._PIECE", 1 << 14)
    torch.set_num_threads(threads)
    assert torch.equal(sparse_product(x, rows), alone)
    assert torch.equal(sparse_product(x[100:237], rows), alone[100:237])
    torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 70, 7)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_does_what_torch_s_does(shape, biased):
    layer = Linear(7, 9, bias=biased)
    with torch.no_grad():
        layer.weight.mul_(drawn(9, 7) > 1)
    assert compressed_if_faster(layer.weight) is not None
    x = drawn(*shape).requires_grad_()
    grad = drawn(*shape[:-1], 9, seed=1)
    inputs = [x, *layer.parameters()]
    out, wanted = layer(x), F.linear(x, layer.weight, layer.bias)
    close(out, wanted)
    found = torch.autograd.grad(out, inputs, grad)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, grad), strict=True):
        close(one, other)


def test_the_loss_is_the_one_of_dense_products(monkeypatch):
    state, weight = drawn(150, 8).requires_grad_(), drawn(30, 8, density=0.2).requires_grad_()
    targets = torch.arange(150) % 30

    def loss_and_gradients():
        loss = next_token_loss(state, weight, targets)
        return loss, *torch.autograd.grad(loss, [state, weight])

    sparse = loss_and_gradients()
    monkeypatch.setenv(sparse_linear.VARIABLE, "0")
    for one, other in zip(sparse, loss_and_gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_weight_is_read_at_each_product():
    x, weight = torch.ones(3, 4), torch.eye(4)
    assert linear(x, weight).sum() == 12
    weight.data[0] = 0
    weight.numpy()[1] = 0
    assert linear(x, weight).sum() == 6


def test_unchanged_weights_are_read_once(monkeypatch):
    x, weight = torch.ones(3, 4), torch.eye(4)
    with unchanged_weights():
        first = compressed_if_faster(weight)
        assert compressed_if_faster(weight) is first
        with unchanged_weights():
            assert compressed_if_faster(weight) is first
        assert linear(x, weight).sum() == 12
    weight.data[0] = 0
    assert linear(x, weight).sum() == 9


def test_results_for_one_object_are_kept_for_each_function():
    weight = drawn(3, 5)
    with unchanged_weights():
        assert once_if_unchanged(len, weight) == 3
        assert once_if_unchanged(rows_of, weight).width == 5
        assert once_if_unchanged(torch.equal, weight, weight) is True


@pytest.mark.parametrize("graded", [False, True])
def test_the_unembedding_is_compressed_once_for_all_losses(graded, monkeypatch):
    compressions = []

    def counted(*arguments):
        compressions.append(arguments)
        return compressed_rows(*arguments)

    monkeypatch.setattr(sparse_linear, "compressed_rows", counted)
    state, weight = drawn(10, 8), drawn(30, 8, density=0.2).requires_grad_()
    with unchanged_weights(), torch.set_grad_enabled(graded):
        losses = [next_token_loss(state, weight, torch.arange(10)) for _ in range(3)]
    assert torch.equal(losses[0], losses[2])
    assert len(compressions) == 1


def test_a_dense_weight_stays_dense(monkeypatch):
    monkeypatch.setenv(sparse_linear.VARIABLE, "0.5")
    assert compressed_if_faster(torch.ones(4, 4)) is None
    half = torch.ones(4, 4)
    half[:2] = 0
    assert compressed_if_faster(half) is not None
    half[0, 0] = 1
    assert compressed_if_faster(half) is None


def test_the_faster_way_is_measured_once(monkeypatch):
    monkeypatch.setenv(sparse_linear.VARIABLE, "auto")
    monkeypatch.setenv("WIREWORK_PRODUCTS", "torch")
    asked = []

    def choose(question, default, ways):
        asked.append(question)
        both = ways()
        close(both["sparse"](), both["dense"]())
        return "sparse"

    monkeypatch.setattr(fastest, "choose", choose)
    assert compressed_if_faster(drawn(100, 60, density=0.1)) is not None
    assert asked == ["sparse product 64x128 1/8"]


@pytest.mark.parametrize("word", ["fast", "-1", "1.5", "nan"])
def test_a_wrong_setting_is_refused(monkeypatch, word):
    monkeypatch.setenv(sparse_linear.VARIABLE, word)
    with pytest.raises(InputError, match="WIREWORK_SPARSE must be auto or a density"):
        compressed_if_faster(torch.eye(4))


def test_without_numba_every_product_is_dense(monkeypatch):
    monkeypatch.setattr("wirework.nn.kernels.compiled.is_available", lambda: False)
    assert compressed_if_faster(torch.eye(4)) is None
    assert np.array_equal(linear(torch.ones(2, 4), torch.eye(4)).numpy(), np.ones((2, 4)))


def test_generation_reads_each_weight_once(monkeypatch):
    read = []
    real = sparse_linear._compressed_if_faster

    def counted(weight):
        read.append(1)
        return real(weight)

    monkeypatch.setattr(sparse_linear, "_compressed_if_faster", counted)
    model = Transformer(ModelConfig(vocab_size=50, d_model=16, n_layer=1, n_ctx=8, d_head=8))
    model.generate(torch.zeros(1, 2, dtype=torch.int64), 5)
    assert len(read) == 5  # four of a block and the unembedding
