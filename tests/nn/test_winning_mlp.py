"""Against the dense formula, differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.winning_mlp import winning_mlp

KINDS: list[Activation] = ["gelu", "gelu_tanh", "relu"]


def given(k: int, bias: bool) -> tuple[list[Tensor], Tensor]:
    """Return x, both weights, mask and maybe both biases in float64, and the winners."""
    torch.manual_seed(k)
    indices = torch.rand(2, 5, 24).argsort(-1)[..., :k].sort(-1).values
    indices[..., 0][indices[..., 0] == 3] = 0  # some neuron may win nowhere
    mask = torch.zeros(2, 5, 24, dtype=torch.float64).scatter(-1, indices, 1.0)
    shapes: list[tuple[int, ...]] = [(2, 5, 6), (24, 6), (7, 24)]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes] + [mask]
    if bias:
        tensors += [torch.randn(24).double(), torch.randn(7).double()]
    return [tensor.requires_grad_() for tensor in tensors], indices


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("k", [1, 3, 23])
def test_values_and_all_gradients_are_those_of_dense_products(
    k: int, bias: bool, kind: Activation
) -> None:
    tensors, indices = given(k, bias)
    x, up, down, mask, *biases = tensors
    up_bias, down_bias = biases or (None, None)
    dense = torch.nn.functional.linear(
        mask * activate(torch.nn.functional.linear(x, up, up_bias), kind), down, down_bias
    )
    found = winning_mlp(x, (up, up_bias), (down, down_bias), mask, indices, kind)
    torch.testing.assert_close(found, dense)
    grad = torch.randn_like(dense)
    for one, other in zip(
        torch.autograd.grad(found, tensors, grad),
        torch.autograd.grad(dense, tensors, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_under_autocast_products_are_narrow_and_what_comes_out_is_not() -> None:
    tensors, indices = given(3, bias=True)
    x, up, down, mask, *biases = (t.detach().float().requires_grad_() for t in tensors)
    with torch.autocast("cpu", torch.bfloat16):
        found = winning_mlp(x.bfloat16(), (up, biases[0]), (down, biases[1]), mask, indices, "gelu")
    dense = (mask * activate(x @ up.t() + biases[0], "gelu")) @ down.t() + biases[1]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dense, rtol=0.05, atol=0.1)
    found.sum().backward()
    assert x.grad is not None
    assert up.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_an_activation_is_autograds(kind: Activation) -> None:
    x = torch.linspace(-3, 3, 20, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    (wanted,) = torch.autograd.grad(activate(x, kind), x, grad)
    torch.testing.assert_close(activate_backward(grad, x.detach(), kind), wanted)
