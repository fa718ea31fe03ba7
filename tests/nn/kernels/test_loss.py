"""The fused next-token loss against logits and cross-entropy written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from present import present
from torch import Tensor

from wirework.nn.kernels import loss as loss_module
from wirework.nn.kernels.loss import next_token_loss

D, V = 6, 11


def parts(count: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(count)
    named = {
        "state": torch.randn(count, D, generator=generator),
        "weight": torch.randn(V, D, generator=generator),
        "bigram": torch.randn(V, V, generator=generator),
        "bias": torch.randn(V, generator=generator),
    }
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in named.items()}
    ids = {
        name: torch.randint(0, V, (count,), generator=generator) for name in ("targets", "tokens")
    }
    return leaves | ids


def plain(p: dict[str, Tensor], bigram: bool, bias: bool) -> Tensor:
    logits = p["state"] @ p["weight"].T
    logits = logits + p["bigram"][p["tokens"]] if bigram else logits
    return F.cross_entropy(logits + p["bias"] if bias else logits, p["targets"])


def fused(p: dict[str, Tensor], bigram: bool, bias: bool) -> Tensor:
    return next_token_loss(
        p["state"],
        p["weight"],
        p["targets"],
        bigram=p["bigram"] if bigram else None,
        tokens=p["tokens"] if bigram else None,
        bias=p["bias"] if bias else None,
    )


def test_worked_by_hand():
    state, weight = torch.tensor([[math.log(3)]]), torch.tensor([[0.0], [1.0]])
    loss = next_token_loss(state, weight, torch.tensor([0]))  # odds 1 to 3
    torch.testing.assert_close(loss, torch.tensor(math.log(4)))
    bigram = torch.tensor([[9.0, 9.0], [math.log(6), 0.0]])  # odds 6 to 3
    loss = next_token_loss(
        state, weight, torch.tensor([0]), bigram=bigram, tokens=torch.tensor([1])
    )
    torch.testing.assert_close(loss, torch.tensor(math.log(9 / 6)))


@pytest.mark.parametrize("bigram", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 511, 512, 513, 1024, 1200])
def test_loss_and_gradients_across_borders_of_pieces(bigram, bias, count):
    p = parts(count)
    got, aim = fused(p, bigram, bias), plain(p, bigram, bias)
    torch.testing.assert_close(got, aim, atol=1e-12, rtol=1e-12)
    names = ["state", "weight", *(["bigram"] if bigram else []), *(["bias"] if bias else [])]
    wanted = [p[name] for name in names]
    pairs = zip(
        torch.autograd.grad(3 * got, wanted), torch.autograd.grad(3 * aim, wanted), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", ["state", "weight", "bigram", "bias"])
def test_each_part_can_be_the_only_one_that_wants_a_gradient(name):
    p = parts(7)
    for other in ("state", "weight", "bigram", "bias"):
        p[other].requires_grad_(other == name)
    (got,) = torch.autograd.grad(fused(p, True, True), p[name])
    (aim,) = torch.autograd.grad(plain(p, True, True), p[name])
    torch.testing.assert_close(got, aim)


def test_gradients_are_differences_of_the_loss(monkeypatch):
    monkeypatch.setattr(loss_module, "_PIECES", (3, 3))
    p, names = parts(8), ["state", "weight", "bigram", "bias"]
    slopes = torch.autograd.grad(fused(p, True, True), [p[name] for name in names])
    for name, slope in zip(names, slopes, strict=True):
        way = torch.randn(
            slope.shape, dtype=slope.dtype, generator=torch.Generator().manual_seed(0)
        )
        with torch.no_grad():
            up, down = (fused(p | {name: p[name] + e * way}, True, True) for e in (1e-5, -1e-5))
        torch.testing.assert_close((slope * way).sum(), (up - down) / 2e-5, atol=1e-8, rtol=1e-6)


def test_second_backward_raises_instead_of_scaling_twice():
    loss = fused(parts(5), True, True)
    loss.backward(torch.tensor(2.0, dtype=torch.float64), retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_state_gives_a_float32_loss(dtype):
    p = parts(600, torch.float32)
    expected = plain(p, True, True)
    expected.backward()
    aims = {n: present(p[n].grad).clone() for n in ("state", "weight", "bigram", "bias")}
    narrow = p | {"state": p["state"].detach().to(dtype).requires_grad_()}
    for name in ("weight", "bigram", "bias"):
        p[name].grad = None
    got = fused(narrow, True, True)
    got.backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-2, rtol=0)
    for name, aim in aims.items():
        torch.testing.assert_close(present(narrow[name].grad).float(), aim, atol=2e-3, rtol=5e-2)


def test_without_grad_mode_no_gradient_is_made(monkeypatch):
    p = parts(5, torch.float32)

    def forbidden(*args: object) -> Tensor:
        raise AssertionError("made room for a gradient")

    monkeypatch.setattr(torch, "zeros_like", forbidden)
    with torch.no_grad():
        loss = fused(p, True, True)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain(p, True, True).detach())


def test_second_derivative_raises_instead_of_being_wrong():
    p = parts(5)
    (first,) = torch.autograd.grad(fused(p, False, False) ** 2, p["state"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_bigram_needs_tokens():
    p = parts(3)
    with pytest.raises(ValueError, match="both bigram and tokens"):
        next_token_loss(p["state"], p["weight"], p["targets"], bigram=p["bigram"])
