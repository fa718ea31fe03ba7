"""Fused causal attention against its definition: values and gradients, sinks, windows, bf16."""

import math

import pytest
import torch
from present import present
from torch import Tensor

from wirework.nn.kernels.attention import (
    _visible,
    attention_with_sink_key,
    causal_attention,
    causal_attention_reference,
)

SINKS = [None, 0.0, 4.0, -30.0]
WINDOWS = [None, 1, 3, 9, 50]


def inputs(dtype: torch.dtype = torch.float64, length: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(2, 3, length, 5, generator=generator).to(dtype) for _ in range(3)]


def sinks(level: float | None, dtype: torch.dtype = torch.float64) -> Tensor | None:
    return None if level is None else level + torch.tensor([0.3, -1.0, 2.0], dtype=dtype)


def elsewhere(q, k, v, *, sink, scale, window):
    """Attend as on devices other than the CPU."""
    sees = _visible(q.shape[-2], window, q.device)
    return attention_with_sink_key(q, k, v, sink, scale, sees)


def test_worked_by_hand():
    q = torch.tensor([[[[1.0], [2.0]]]])
    k = torch.tensor([[[[0.0], [math.log(3)]]]])
    v = torch.tensor([[[[4.0], [8.0]]]])
    out = causal_attention(q, k, v)  # second token: odds 1 to 9
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, (4 + 9 * 8) / 10]))
    sink = torch.tensor([math.log(2)])  # two more in the denominator
    out = causal_attention(q, k, v, sink=sink)
    torch.testing.assert_close(out.flatten(), torch.tensor([4 / 3, (4 + 9 * 8) / 12]))
    out = causal_attention(q, k, v, sink=sink, window=1)
    torch.testing.assert_close(out.flatten(), torch.tensor([4 / 3, 9 * 8 / 11]))
    out = causal_attention(q, k, v, scale=0.5)  # odds 1 to 3
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, (4 + 3 * 8) / 4]))


@pytest.mark.parametrize("attend", [causal_attention, elsewhere])
@pytest.mark.parametrize("level", SINKS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [1, 9, 40])
def test_values_and_gradients_are_those_of_the_definition(attend, level, window, length):
    q, k, v = leaves = [t.requires_grad_() for t in inputs(length=length)]
    sink = sinks(level)
    wanted = leaves if sink is None else [*leaves, sink.requires_grad_()]
    out = attend(*leaves, sink=sink, scale=0.7, window=window)
    expected = causal_attention_reference(q, k, v, sink, 0.7, window)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-10)
    slope = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(out, wanted, slope)
    aim = torch.autograd.grad(expected, wanted, slope)
    for a, b in zip(got, aim, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


def test_gradcheck_with_sink_and_window():
    leaves = [t.requires_grad_() for t in (*inputs(length=6), present(sinks(0.0)))]

    def attend(q: Tensor, k: Tensor, v: Tensor, sink: Tensor) -> Tensor:
        return causal_attention(q, k, v, sink=sink, window=4)

    assert torch.autograd.gradcheck(attend, leaves)


def test_second_derivative_raises_instead_of_being_wrong():
    q, k, v = (t.requires_grad_() for t in inputs())
    squares = causal_attention(q, k, v).square().sum()
    (first,) = torch.autograd.grad(squares, q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("level", [None, 0.0])
def test_bfloat16_in_and_out(level):
    low = [t.requires_grad_() for t in inputs(torch.bfloat16)]
    high = [t.detach().double().requires_grad_() for t in low]
    out = causal_attention(*low, sink=sinks(level, torch.float32))
    expected = causal_attention(*high, sink=sinks(level))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, atol=2e-2, rtol=1e-2)
    out.sum().backward()
    expected.sum().backward()
    for a, b in zip(low, high, strict=True):
        assert present(a.grad).dtype == torch.bfloat16
        torch.testing.assert_close(present(a.grad).double(), b.grad, atol=3e-2, rtol=2e-2)


def test_sink_of_minus_infinity_is_none_and_a_huge_one_takes_all():
    q, k, v = inputs()
    none = causal_attention(q, k, v, sink=torch.full((3,), -math.inf, dtype=torch.float64))
    torch.testing.assert_close(none, causal_attention(q, k, v))
    everything = causal_attention(q, k, v, sink=torch.full((3,), 1e4, dtype=torch.float64))
    assert not everything.any()


def test_default_scale_is_the_root_of_the_head_width():
    q, k, v = inputs()
    expected = causal_attention_reference(q, k, v, None, 5**-0.5, None)
    torch.testing.assert_close(causal_attention(q, k, v), expected)


@pytest.mark.parametrize("channels", [8, 16])
def test_autocast_does_not_round_what_float32_brings(channels):
    q, k, v = (
        torch.randn(2, 4, 100, channels, generator=torch.Generator().manual_seed(s))
        for s in range(3)
    )
    wanted = causal_attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(causal_attention(q, k, v), wanted)


@pytest.mark.parametrize("channels", [8, 16])
def test_a_later_token_that_is_not_finite_does_no_harm(channels):
    q, k, v = (
        torch.randn(1, 2, 40, channels, generator=torch.Generator().manual_seed(s))
        for s in range(3)
    )
    k[:, :, 20] = torch.nan
    assert causal_attention(q, k, v)[:, :, :20].isfinite().all()
