"""Against the dense formula, differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from wirework.nn.activation import Activation, activate, activate_backward
from wirework.nn.kernels.sparse_gate import SparseMask
from wirework.nn.kernels.sparse_mlp import sparse_mlp
from wirework.nn.kernels.sparse_pattern import SparsePattern

KINDS: list[Activation] = ["gelu", "gelu_tanh", "relu"]


def given(k: int, bias: bool) -> tuple[list[Tensor], SparsePattern]:
    """Return x, both weights, the mask's values and maybe both biases in float64, and the places.

    One unit of each token is a place where the mask is 0.
    """
    torch.manual_seed(k)
    won = torch.rand(10, 24).argsort(-1) <= k
    won[:, 3] = False  # some neuron may win nowhere
    tokens, units = won.nonzero().unbind(-1)
    places = SparsePattern(tokens, units, (10, 24))
    values = torch.ones(len(places.units), dtype=torch.float64)
    values[:: k + 1] = 0
    shapes: list[tuple[int, ...]] = [(2, 5, 6), (24, 6), (7, 24)]
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes] + [values]
    if bias:
        tensors += [torch.randn(24).double(), torch.randn(7).double()]
    return [tensor.requires_grad_() for tensor in tensors], places


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("k", [1, 3, 23])
def test_values_and_all_gradients_are_those_of_dense_products(
    k: int, bias: bool, kind: Activation
) -> None:
    tensors, places = given(k, bias)
    x, up, down, values, *biases = tensors
    up_bias, down_bias = biases or (None, None)
    neurons, mask = torch.nn.functional.linear(x, up, up_bias), places.spread(values)
    dense = torch.nn.functional.linear(
        mask.view_as(neurons) * activate(neurons, kind), down, down_bias
    )
    found = sparse_mlp(x, (up, up_bias), (down, down_bias), SparseMask(places, values), kind)
    torch.testing.assert_close(found, dense)
    grad = torch.randn_like(dense)
    for one, other in zip(
        torch.autograd.grad(found, tensors, grad),
        torch.autograd.grad(dense, tensors, grad),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_autocast_narrows_what_is_read_alone() -> None:
    tensors, places = given(3, bias=True)
    x, up, down, values, *biases = (t.detach().float().requires_grad_() for t in tensors)
    mask = SparseMask(places, values)
    with torch.autocast("cpu", torch.bfloat16):
        found = sparse_mlp(x.bfloat16(), (up, biases[0]), (down, biases[1]), mask, "gelu")
    neurons = torch.nn.functional.linear(x.bfloat16().float(), up, biases[0])
    kept = places.spread(values).view_as(neurons) * activate(neurons, "gelu")
    torch.testing.assert_close(found, torch.nn.functional.linear(kept, down, biases[1]))
    found.sum().backward()
    assert x.grad is not None
    assert up.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_an_activation_is_autograds(kind: Activation) -> None:
    x = torch.linspace(-3, 3, 20, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    (wanted,) = torch.autograd.grad(activate(x, kind), x, grad)
    torch.testing.assert_close(activate_backward(grad, x.detach(), kind), wanted)
