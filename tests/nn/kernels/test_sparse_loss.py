"""The loss from compressed rows: against torch's cross-entropy, in value and every gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from wirework.nn.kernels.sparse_linear import compressed_rows
from wirework.nn.kernels.sparse_loss import Wanted, sparse_loss

ALL = (True, True, True, True)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(n, width, vocabulary, density=0.3, size=1.0):
    """State, weight, targets, bigram, tokens and bias; leaves that want gradients."""
    weight = torch.where(drawn(vocabulary, width) < 4 * density - 2, drawn(vocabulary, width), 0)
    ids = (drawn(2, n, seed=1).abs() * 1000).long() % vocabulary
    leaves = drawn(n, width) * size, weight, drawn(vocabulary, vocabulary), drawn(vocabulary)
    state, weight, bigram, bias = (leaf.requires_grad_() for leaf in leaves)
    return state, weight, ids[0], bigram, ids[1], bias


def rows_of(weight):
    return compressed_rows(weight, int(weight.count_nonzero()))


def computed(state, weight, targets, bigram, tokens, bias, *, wants=ALL, entries=None):
    to_state, to_weight, to_bigram, to_bias = wants
    wanted = Wanted(to_state, to_weight, entries, to_bigram, to_bias)
    rows = rows_of(weight)
    return sparse_loss(state, rows, targets, bigram=bigram, tokens=tokens, bias=bias, wanted=wanted)


@pytest.mark.parametrize(
    ("n", "width", "vocabulary"), [(1, 1, 2), (63, 5, 9), (64, 8, 64), (300, 17, 70), (1100, 6, 33)]
)
def test_loss_and_gradients_are_torch_s(one_thread, n, width, vocabulary):
    given = state, weight, targets, bigram, tokens, bias = case(n, width, vocabulary)
    wanted = F.cross_entropy(state @ weight.t() + bias + bigram[tokens], targets)
    wanted.backward()
    found = computed(*given, entries=rows_of(weight))
    torch.testing.assert_close(found.loss, wanted.detach(), rtol=1e-6, atol=1e-6)
    for one, leaf in zip(
        (found.state, found.weight, found.bigram, found.bias),
        (state, weight, bigram, bias),
        strict=True,
    ):
        torch.testing.assert_close(one, leaf.grad, rtol=1e-4, atol=1e-6)
    at_entries = weight.grad[weight != 0]
    torch.testing.assert_close(found.entries, at_entries, rtol=1e-4, atol=1e-6)


def test_only_wanted_gradients_are_computed(one_thread):
    given = case(20, 3, 5)
    found = computed(*given, wants=(True, False, False, False))
    assert found.state is not None
    assert found[2:] == (None, None, None, None)
    assert torch.equal(found.state, computed(*given).state)


def test_without_bigram_and_bias(one_thread):
    state, weight, targets, *_ = case(20, 3, 5)
    found = computed(state, weight, targets, None, None, None, wants=(True, True, False, False))
    wanted = F.cross_entropy(state @ weight.t(), targets)
    wanted.backward()
    torch.testing.assert_close(found.loss, wanted.detach())
    torch.testing.assert_close(found.weight, weight.grad, rtol=1e-4, atol=1e-6)


def test_logits_far_apart(one_thread):
    given = state, weight, targets, bigram, tokens, bias = case(50, 4, 6, size=1000.0)
    logits = (state @ weight.t() + bias + bigram[tokens]).double()
    found = computed(*given)
    wanted = F.cross_entropy(logits, targets)
    torch.testing.assert_close(found.loss.double(), wanted.detach(), rtol=1e-6, atol=0)
    assert found.state.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_make_the_loss_nan(one_thread, bad):
    state, weight, *rest = case(70, 4, 6)
    with torch.no_grad():
        weight[2, 1] = 1.0
        state[66, 1] = bad
    assert computed(state, weight, *rest).loss.isnan()


def test_the_bits_do_not_depend_on_threads(one_thread):
    given = case(1500, 9, 40)
    entries = rows_of(given[1])
    alone = computed(*given, entries=entries)
    torch.set_num_threads(2)
    beside = computed(*given, entries=entries)
    torch.set_num_threads(1)
    for name in ("loss", "state", "entries", "bigram", "bias"):
        assert torch.equal(getattr(alone, name), getattr(beside, name))
    # The dense gradient is torch's product, which may sum 1,500 terms in another order.
    rounding = 1e-6 * float(alone.weight.detach().abs().max())
    torch.testing.assert_close(alone.weight, beside.weight, rtol=0, atol=rounding)
    assert torch.equal(alone.bias, beside.bias)
