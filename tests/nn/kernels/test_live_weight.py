"""Live entries: values, gradients and projection are those of the dense matrix at these entries."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wirework.nn.kernels.linear import Embedding, Linear
from wirework.nn.kernels.live_weight import (
    LiveWeight,
    keep_largest_entries_,
    largest,
    with_candidates,
)
from wirework.nn.kernels.loss import next_token_loss
from wirework.nn.projection import Projection


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Matrices are small."""


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def live_and_dense(layer, density=0.3, seed=0):
    """Make a layer live; return its entries and a dense leaf of the same values."""
    generator = torch.Generator().manual_seed(seed)
    size = layer.weight.numel()
    places = (torch.rand(size, generator=generator) < density).nonzero().view(-1)
    with torch.no_grad():
        flat = layer.weight.view(-1)
        kept = flat[places]
        kept[::3] = 0  # candidates
        flat.zero_()
        flat[places] = kept
    layer.live = LiveWeight(layer.weight, places)
    return layer.live, layer.weight.detach().clone().requires_grad_()


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_exploring", [False, True])
@pytest.mark.parametrize("shape", [(5,), (70, 5), (2, 3, 5)])
def test_a_linear_layer(shape, is_exploring):
    layer = Linear(5, 9)
    live, weight = live_and_dense(layer)
    live.is_exploring = is_exploring
    x, grad = drawn(*shape).requires_grad_(), drawn(*shape[:-1], 9, seed=1)
    out, wanted = layer(x), F.linear(x, weight, layer.bias)
    close(out, wanted)
    to_x, to_bias, to_values = torch.autograd.grad(out, [x, layer.bias, live.values], grad)
    dense = torch.autograd.grad(wanted, [x, layer.bias, weight], grad)
    close(to_x, dense[0])
    close(to_bias, dense[1])
    close(to_values, dense[2].view(-1)[live.places])
    assert (live.explored is not None) == is_exploring
    if live.explored is not None:
        close(live.explored, dense[2])


@pytest.mark.parametrize("is_exploring", [False, True])
def test_an_embedding(is_exploring):
    layer = Embedding(11, 6)
    live, weight = live_and_dense(layer)
    live.is_exploring = is_exploring
    tokens, grad = torch.tensor([[3, 0, 3], [10, 3, 1]]), drawn(2, 3, 6)
    out, wanted = layer(tokens), F.embedding(tokens, weight)
    assert torch.equal(out, wanted)
    (found,) = torch.autograd.grad(out, live.values, grad)
    (dense,) = torch.autograd.grad(wanted, weight, grad)
    close(found, dense.view(-1)[live.places])
    if is_exploring:
        close(live.explored, dense)


@pytest.mark.parametrize("is_exploring", [False, True])
def test_the_loss(is_exploring):
    layer = Linear(6, 20, bias=False)
    live, weight = live_and_dense(layer)
    live.is_exploring = is_exploring
    state, targets = drawn(300, 6).requires_grad_(), torch.arange(300) % 20
    loss = next_token_loss(state, layer.weight, targets, live=live)
    wanted = F.cross_entropy(state @ weight.t(), targets)
    close(loss, wanted)
    found = torch.autograd.grad(loss, [state, live.values])
    dense = torch.autograd.grad(wanted, [state, weight])
    close(found[0], dense[0])
    close(found[1], dense[1].view(-1)[live.places])
    if is_exploring:
        close(live.explored, dense[1])


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.sampled_from([None, 0, 1]),
    st.floats(0, 1), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_projection_keeps_what_the_dense_one_keeps(
    rows, columns, floor, floor_dim, share, has_ties, seed
):
    dense = drawn(rows, columns, seed=seed)
    if has_ties:
        dense = dense.round()
    live = LiveWeight(nn.Parameter(dense.clone()), torch.arange(dense.numel()))
    projection = Projection(dense, floor=floor, floor_dim=floor_dim)
    k = max(1, round(share * dense.numel()), projection.n_floor_entries())
    keep_largest_entries_(live, k, floor, floor_dim)
    projection.keep_(k)
    assert torch.equal(live.weight, dense)
    assert torch.equal(live.values.detach(), dense.view(-1))


@pytest.mark.parametrize("floor_dim", [0, 1])
def test_a_neuron_with_fewer_entries_than_the_floor_keeps_its_place(floor_dim):
    dense = torch.tensor([[4.0, 3.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    if floor_dim == 1:
        dense = dense.t().contiguous()
    live = LiveWeight(nn.Parameter(dense.clone()), dense.view(-1).nonzero().flatten())
    projection = Projection(dense, floor=1, floor_dim=floor_dim)
    projection.keep_(2)
    keep_largest_entries_(live, 2, 1, floor_dim)
    assert dense.count_nonzero() == 1  # the other place is that of a zero of the second neuron
    assert torch.equal(live.weight, dense)


def test_a_projection_of_some_entries_leaves_the_others_zero():
    weight = nn.Parameter(torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, -2.0]]))
    live = LiveWeight(weight, torch.tensor([1, 2, 3, 5]))
    keep_largest_entries_(live, 2, 0, None)
    assert weight.tolist() == [[0, 3, 0], [0, 0, -2]]
    assert live.values.tolist() == [3, 0, 0, -2]
    assert live.nonzero_rows.columns.tolist() == [1, 2]
    assert live.nonzero_columns.starts.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, []), (1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_the_largest_worked_by_hand(k, expected):
    sizes = np.array([1, 3, 1, 2], np.float32)
    assert np.flatnonzero(largest(sizes, k)).tolist() == expected


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 70)),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([1, 3, 1000]),
    st.integers(0, 2**32 - 1),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_candidates_are_the_zero_weights_of_largest_score(shape, density, levels, seed, data):
    generator = np.random.default_rng(seed)
    weight = np.where(generator.random(shape) < density, -1.5, 0).astype(np.float32)
    scores = (generator.integers(0, levels, shape) / levels).astype(np.float32)
    n = data.draw(st.integers(0, weight.size))
    dead = np.flatnonzero(weight == 0)
    chosen = dead[np.argsort(-scores.reshape(-1)[dead], kind="stable")[:n]]
    expected = sorted({*np.flatnonzero(weight).tolist(), *chosen.tolist()})
    found = with_candidates(torch.from_numpy(weight), torch.from_numpy(scores), n)
    assert found.tolist() == expected


def test_candidates_of_one_magnitude_and_of_infinite_score():
    weight = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    scores = torch.tensor([[1.0, torch.inf, 1.0000001], [torch.inf, 0.0, 1.0]])
    assert with_candidates(weight, scores, 1).tolist() == [1, 3]
    assert with_candidates(weight, scores, 2).tolist() == [1, 2, 3]
    assert with_candidates(weight, scores, 3).tolist() == [0, 1, 2, 3]


def test_a_projection_refuses_nan():
    live = LiveWeight(nn.Parameter(torch.tensor([[1.0, torch.nan]])), torch.arange(2))
    with pytest.raises(ValueError, match="NaN, which has no rank"):
        keep_largest_entries_(live, 1, 0, None)
