"""Products by oneDNN against torch's own, in value and gradient, however operands lie in memory."""

import pytest
import torch
import torch.nn.functional as F

from wirework.nn import linear as module
from wirework.nn.linear import Linear, linear, product


@pytest.fixture(autouse=True)
def _by_onednn(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("no oneDNN here")
    monkeypatch.setattr(module, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr(module, "_LEAST", 1)


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


def test_operands_that_lie_apart_in_memory():
    x, weight = drawn(40, 2, 16), drawn(64, 30, seed=1)
    for some in (x[:, 0], x.transpose(0, 1), x[::3], x[:, :1].expand(40, 6, 16)):
        for part in (weight[:16].t(), weight[5:21, 3:].t(), weight[::4].t(), weight[:1, :16]):
            for bias in (None, drawn(2 * len(part))[::2], drawn(1).expand(len(part))):
                close(linear(some, part, bias), F.linear(some, part, bias))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(20, 17, 5), (3, 17, 5), (20, 2, 5), (340, 5)])
def test_weights_get_the_same_gradient_as_a_convolution_s_or_a_product_s(
    shape, threads, monkeypatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, grad = drawn(*shape), drawn(*shape[:-1], 9, seed=1)
    close(module._of_weight(grad, x), grad.flatten(0, -2).t() @ x.flatten(0, -2))


def test_a_gradient_that_is_one_number_spread_out():
    layer, x = Linear(8, 4), drawn(6, 8).requires_grad_()
    layer(x).sum().backward()
    close(x.grad, layer.weight.sum(0).expand(6, 8))
    close(layer.weight.grad, x.detach().sum(0).expand(4, 8))


@pytest.mark.parametrize("sizes", [(3, 400, 7), (7, 400, 3), (400, 3, 7)])
def test_products(sizes):
    rows, between, columns = sizes
    a, b = drawn(rows, between), drawn(between, columns, seed=1)
    close(product(a, b), a @ b)
    close(product(a.t().contiguous().t(), b.t().contiguous().t()), a @ b)


def test_other_dtypes_and_autocast_are_torch_s_own(monkeypatch):
    def never(*_):
        raise AssertionError("by oneDNN")

    monkeypatch.setattr(module, "_by_onednn", never)
    layer, x = Linear(8, 4), drawn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64
    with pytest.raises(AssertionError, match="oneDNN"):
        layer.float()(x)


def test_its_rounding_errors_are_of_the_same_size():
    x, weight = drawn(512, 512), drawn(512, 512, seed=1)
    exact = x.double() @ weight.double().t()
    apart = (linear(x, weight) - exact).abs().max()
    assert apart < 3 * (F.linear(x, weight) - exact).abs().max()
