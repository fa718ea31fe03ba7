"""Tiles against the definition: odd lengths, more heads than a tile holds, a bias, gradients."""

import pytest
import torch

from wirework.nn.kernels import tiled_attention
from wirework.nn.kernels.attention import causal_attention, causal_attention_reference, window_bias
from wirework.nn.kernels.own_position import own_position_attention
from wirework.nn.kernels.tiled_attention import tiled, tiled_backward


@pytest.fixture(params=[1 << 18, 1 << 10], ids=["one-tile-high", "many-tiles"])
def _tile_size(request, monkeypatch):
    monkeypatch.setattr(tiled_attention, "_TILE", request.param)


def drawn(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count))


@pytest.mark.usefixtures("_tile_size")
@pytest.mark.parametrize("length", [1, 7, 32, 33, 64, 100])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_tiles_do_what_the_definition_does(length, window):
    q, k, v = (t.requires_grad_() for t in drawn(3, 3, 2, length, 8))
    (grad,) = drawn(1, 3, 2, length, 8, seed=1)
    bias = None
    if window is not None:
        bias = window_bias(length, window, q.device).double()
    expected = causal_attention_reference(q, k, v, None, 0.7, window)
    wanted = torch.autograd.grad(expected, (q, k, v), grad)
    with torch.no_grad():
        out, lse = tiled(q, k, v, bias, 0.7)
        found = tiled_backward(grad, q, k, v, out, lse, bias, 0.7)
    torch.testing.assert_close(out, expected.detach(), rtol=1e-12, atol=1e-12)
    scores = 0.7 * q @ k.transpose(-1, -2)
    hidden = window_bias(length, length if window is None else window, q.device)
    torch.testing.assert_close(lse, (scores + hidden).logsumexp(-1).detach())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_gradients_of_large_scores():
    q, k, v, grad = (t.float() for t in drawn(4, 1, 1, 50, 4))
    q, k = ((30 * t).requires_grad_() for t in (q, k))
    expected = causal_attention_reference(q.double(), k.double(), v.double(), None, 1.0, None)
    wanted = torch.autograd.grad(expected, (q, k), grad.double())
    with torch.no_grad():
        out, lse = tiled(q, k, v, None, 1.0)
        found = tiled_backward(grad, q, k, v, out, lse, None, 1.0)
    torch.testing.assert_close(out, expected.detach().float(), rtol=0, atol=1e-3)
    assert torch.isfinite(lse).all()
    for one, other in zip(found, wanted, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2)


def test_scores_of_millions_neither_overflow_nor_vanish():
    q, k, v = (t.float() for t in drawn(3, 1, 1, 50, 4))
    out, lse = tiled(q * 1e3, k * 1e3, v, None, 1.0)
    expected = causal_attention_reference(q * 1e3, k * 1e3, v, None, 1.0, None)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-3)
    assert torch.isfinite(lse).all()


def test_heads_behind_tokens_as_a_projection_leaves_them():
    q, k, v = (t.transpose(1, 2) for t in drawn(3, 2, 40, 3, 8))
    found = tiled(q, k, v, None, 1.0)[0]
    torch.testing.assert_close(
        found, tiled(q.contiguous(), k.contiguous(), v.contiguous(), None, 1.0)[0]
    )


@pytest.mark.parametrize("window", [None, 40])
def test_where_they_pay_both_streams_attention_is_what_it_is_without(window, monkeypatch):
    parts = [t.requires_grad_() for t in drawn(5, 2, 64, 130, 4)]
    (grad,) = drawn(1, 2, 64, 130, 4, seed=1)
    assert tiled_attention.is_faster(parts[0])

    def both() -> list[torch.Tensor]:
        clean = causal_attention(*parts[:3], scale=0.7, window=window)
        ablated = own_position_attention(*parts, scale=0.7, window=window)
        return [clean, ablated, *torch.autograd.grad([clean, ablated], parts, [grad, grad])]

    found = both()
    monkeypatch.setattr(tiled_attention, "is_faster", lambda _: False)
    for one, other in zip(found, both(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
