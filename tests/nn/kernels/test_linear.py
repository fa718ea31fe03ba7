"""Layers by each library against torch's own, in value and gradient, however operands lie."""

import pytest
import torch
import torch.nn.functional as F

from wirework.nn.kernels import products
from wirework.nn.kernels.linear import Linear, linear, linear_from_rows
from wirework.nn.kernels.products import LIBRARIES, available
from wirework.nn.kernels.sparse_linear import compressed_rows


@pytest.fixture(autouse=True, params=LIBRARIES)
def library(request, monkeypatch, one_thread):
    if request.param not in available():
        pytest.skip(f"no {request.param} here")
    monkeypatch.setenv("WIREWORK_PRODUCTS", request.param)
    monkeypatch.setattr(products, "_MIN_CHOSEN", 1)
    return request.param


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 7, 5), (2, 3, 7, 5), (300, 5), (2, 0, 5)])
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_does_what_torch_s_does(shape, biased):
    layer = Linear(5, 9, bias=biased)
    x = drawn(*shape).requires_grad_()
    grad = drawn(*shape[:-1], 9, seed=1)
    inputs = [x, *layer.parameters()]
    out, wanted = layer(x), F.linear(x, layer.weight, layer.bias)
    close(out, wanted)
    found = torch.autograd.grad(out, inputs, grad)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, grad), strict=True):
        close(one, other)


def test_a_product_from_the_entries_of_a_small_weight():
    weight, bias = drawn(9, 5, seed=1) * (drawn(9, 5, seed=2) > 1), drawn(9, seed=3)
    x, grad = drawn(2, 7, 5).requires_grad_(), drawn(2, 7, 9, seed=4)
    rows = compressed_rows(weight, int(weight.count_nonzero()))
    out, wanted = linear_from_rows(x, weight, bias, rows), F.linear(x, weight, bias)
    close(out, wanted)
    close(*(torch.autograd.grad(made, x, grad)[0] for made in (out, wanted)))


def test_operands_that_lie_apart_in_memory():
    x, weight = drawn(40, 2, 16), drawn(64, 30, seed=1)
    for some in (x[:, 0], x.transpose(0, 1), x[::3], x[:, :1].expand(40, 6, 16)):
        for part in (weight[:16].t(), weight[5:21, 3:].t(), weight[::4].t(), weight[:1, :16]):
            for bias in (None, drawn(2 * len(part))[::2], drawn(1).expand(len(part))):
                close(linear(some, part, bias), F.linear(some, part, bias))


def test_a_gradient_that_is_one_number_spread_out():
    layer, x = Linear(8, 4), drawn(6, 8).requires_grad_()
    layer(x).sum().backward()
    close(x.grad, layer.weight.sum(0).expand(6, 8))
    close(layer.weight.grad, x.detach().sum(0).expand(4, 8))


def test_other_dtypes_and_autocast_are_torch_s_own(library, monkeypatch):
    def never(*_):
        raise AssertionError("by another library")

    monkeypatch.setattr(products, "_BY", dict.fromkeys(LIBRARIES, never))
    layer, x = Linear(8, 4), drawn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    if library != "torch":
        with pytest.raises(AssertionError, match="another library"):
            layer.float()(x)
