"""Cases of the Triton kernels in Triton's interpreter; `test_triton_kernels.py` starts them."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from top_k_cases import rows_and_k
from torch import Tensor

from wirework.config import ModelConfig
from wirework.nn import Transformer, abs_top_k
from wirework.nn.kernels import device_sparse_linear, device_top_k, sparse_linear, top_k
from wirework.nn.kernels.linear import Linear, linear
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.kernels.top_k import abs_top_k_reference
from wirework.nn.kernels.triton import abs_top_k as kernels
from wirework.nn.kernels.triton.sparse_product import (
    EntryPositions,
    entry_positions,
    gradient_at_nonzeros,
    product_of_channels,
    sparse_product,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTHS = st.integers(1, 20) | st.sampled_from([64, 100])


@given(rows_and_k(DTYPES, WIDTHS, most_rows=3, with_nan=True))
@settings(max_examples=40, deadline=None)
def test_select_keeps_what_torch_keeps(case):
    x, k = case
    kept, mask = kernels.select(x, k)
    expected, expected_mask = device_top_k.select_by_torch(x, k)
    assert torch.equal(mask, expected_mask)
    assert kept.dtype == x.dtype
    assert torch.equal(kept.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_rows_and_rows_across_memory(dtype):
    x = torch.randn(1500, 2, generator=torch.Generator().manual_seed(0)).to(dtype).t()
    for k in (1, 400, 1499):
        kept, mask = kernels.select(x, k)
        assert torch.equal(kept, abs_top_k_reference(x, k))
        assert (mask.sum(-1) == k).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_passes_at_the_mask(dtype):
    grad = torch.randn(3, 700, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.rand(3, 700, generator=torch.Generator().manual_seed(1)) < 0.3
    grad[0, 0], mask[0, 0] = math.inf, False
    assert torch.equal(kernels.pass_kept(grad, mask), torch.where(mask, grad, 0))


def test_abs_top_k_uses_them_if_the_variable_says_so(monkeypatch):
    monkeypatch.setattr(top_k, "_by_torch", lambda x: True)
    monkeypatch.setattr(device_top_k, "select_by_torch", lambda x, k: pytest.fail("torch"))
    leaf = torch.tensor([[1.0, -3.0, 3.0, 0.5]]).requires_grad_()
    monkeypatch.setenv("WIREWORK_TRITON", "0")
    with pytest.raises(pytest.fail.Exception):
        abs_top_k(leaf, 2)
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    kept = abs_top_k(leaf, 2)
    kept.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert torch.equal(kept.detach(), torch.tensor([[0.0, -3.0, 3.0, 0.0]]))
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.tensor([[0.0, 2.0, 3.0, 0.0]]))


def sparse(height: int, width: int, density: float) -> tuple[Tensor, Tensor, EntryPositions]:
    """Return a matrix, its nonzeros and their positions."""
    generator = torch.Generator().manual_seed(height)
    weight = torch.randn(height, width, generator=generator)
    weight *= torch.rand(height, width, generator=generator) < density
    rows, columns = weight.nonzero().unbind(1)
    starts = torch.zeros(height + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(rows, minlength=height).cumsum(0)
    return weight, weight[rows, columns], entry_positions(starts, columns, width)


def test_a_product_by_hand():
    # Rows: (0, 2, 0), empty, (3, 0, -1).
    starts, columns = torch.tensor([0, 1, 1, 3]), torch.tensor([1, 0, 2])
    pattern = entry_positions(starts, columns, 3)
    values = torch.tensor([2.0, 3.0, -1.0])
    x = torch.tensor([[1.0, 10.0, 100.0], [2.0, 0.0, 4.0]])
    out = product_of_channels(x.t().contiguous(), pattern.starts, pattern.columns, values)
    assert torch.equal(out, torch.tensor([[20.0, 0.0], [0.0, 0.0], [-97.0, 2.0]]))
    grad = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 3.0]])
    to_values = gradient_at_nonzeros(grad, x.t().contiguous(), pattern)
    assert torch.equal(to_values, torch.tensor([10.0, 6.0, 12.0]))


@pytest.mark.parametrize(("height", "width", "density"), [(9, 13, 0.3), (20, 7, 0.05), (4, 4, 0)])
@pytest.mark.parametrize("shape", [(3, 100), (257,)])
def test_product_and_gradients_are_those_of_the_dense_matrix(height, width, density, shape):
    weight, values, pattern = sparse(height, width, density)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, width, generator=generator).requires_grad_()
    leaf, dense_x = values.clone().requires_grad_(), x.detach().clone().requires_grad_()
    out = sparse_product(x, leaf, pattern)
    weight.requires_grad_()
    expected = dense_x @ weight.t()
    grad = torch.randn(expected.shape, generator=generator)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, dense_x.grad)
    assert weight.grad is not None
    rows, columns = pattern.rows.long(), pattern.columns.long()
    torch.testing.assert_close(leaf.grad, weight.grad[rows, columns], rtol=1e-5, atol=1e-4)


def test_a_narrow_type_stays_and_sums_are_wide():
    weight, values, pattern = sparse(9, 13, 0.5)
    x = torch.randn(40, 13, generator=torch.Generator().manual_seed(1)).bfloat16()
    out = sparse_product(x, values, pattern)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), x.float() @ weight.t(), rtol=1 / 64, atol=1e-2)


def test_only_the_needed_gradients_are_computed(monkeypatch):
    _, values, pattern = sparse(9, 13, 0.5)
    name = "wirework.nn.kernels.triton.sparse_product.gradient_at_nonzeros"
    monkeypatch.setattr(name, lambda *args: pytest.fail("computed"))
    x = torch.randn(5, 13).requires_grad_()
    sparse_product(x, values, pattern).sum().backward()
    assert x.grad is not None


@pytest.fixture
def products(monkeypatch) -> list[Tensor]:
    """Ask for the products in layers; return the inputs of those that are computed."""
    module, inputs = "wirework.nn.kernels.triton.sparse_product", []

    def recorded(x, values, pattern):
        inputs.append(x)
        return sparse_product(x, values, pattern)

    monkeypatch.setattr(f"{module}.sparse_product", recorded)
    monkeypatch.setenv("WIREWORK_TRITON", "1")
    monkeypatch.setenv("WIREWORK_PRODUCTS", "torch")
    monkeypatch.delenv(sparse_linear.VARIABLE, raising=False)
    return inputs


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 13), (2, 3, 13), (2, 1, 3, 13), (1, 300, 13)])
@pytest.mark.parametrize("density", [0, 0.02, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_with_its_gradients_of_input_and_bias(products, shape, density, biased):
    weight = sparse(37, 13, density)[0]
    assert (weight == 0).all(1).any()  # an empty row
    bias = drawn(37, seed=2).requires_grad_() if biased else None
    x, grad = drawn(*shape).requires_grad_(), drawn(*shape[:-1], 37, seed=1)
    inputs = [x] if bias is None else [x, bias]
    with unchanged_weights():
        out = linear(x, weight, bias)
    assert len(products) == 1
    assert out.is_contiguous()
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out, inputs, grad)
    for one, other in zip(found, torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_layer_keeps_its_type(products, dtype):
    weight, bias, x = (t.to(dtype) for t in (sparse(37, 13, 0.1)[0], drawn(37), drawn(4, 13)))
    with unchanged_weights():
        out = linear(x, weight, bias)
    assert len(products) == 1
    assert out.dtype == dtype
    expected = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(out.double(), expected, rtol=1 / 128, atol=1e-2)


def test_only_what_was_asked_for_uses_the_product(products, monkeypatch):
    layer, x = Linear(13, 37), drawn(4, 13).requires_grad_()
    layer.weight.data = sparse(37, 13, 0.1)[0]
    expected = F.linear(x, layer.weight, layer.bias)
    layer(x)  # outside a block
    with unchanged_weights():
        torch.testing.assert_close(layer(x), expected)  # a gradient of the weight is wanted
        for value in ("0", "auto"):
            monkeypatch.setenv("WIREWORK_TRITON", value)
            with torch.no_grad():
                layer(x)
        assert not products
        monkeypatch.setenv("WIREWORK_TRITON", "1")
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)
        layer.weight.requires_grad_(False)
        torch.testing.assert_close(layer(x), expected)
        assert len(products) == 2


@pytest.mark.usefixtures("products")
def test_infinity_reaches_only_the_outputs_that_read_it():
    with unchanged_weights():
        out = linear(torch.tensor([[math.inf] + 9 * [2.0]]), torch.eye(10))
    assert out.tolist() == [[math.inf] + 9 * [2.0]]


def test_autocast_keeps_its_own_product(products):
    weight, x = sparse(37, 13, 0.1)[0], drawn(4, 13)
    with unchanged_weights(), torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    assert not products


def test_a_compiled_layer_does_not_use_it(products):
    layer, x = Linear(13, 37).requires_grad_(False), drawn(4, 13)
    layer.weight.data = sparse(37, 13, 0.1)[0]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with unchanged_weights():
        torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias))
    assert not products


def test_a_weight_is_read_once_in_a_block_and_again_in_the_next(products, monkeypatch):
    read = []

    def counted(weight):
        read.append(weight)
        return True

    monkeypatch.setattr(device_sparse_linear, "has_few_entries", counted)
    weight, x = torch.eye(4), torch.ones(3, 4)
    for _ in range(2):
        with unchanged_weights():
            assert linear(x, weight).sum() == linear(x, weight).sum() == 3 * weight.sum()
        weight[0] = 0
    assert len(read) == 2
    assert len(products) == 4


def test_entries_that_inference_mode_read_serve_a_pass_with_gradients(products):
    weight, x = sparse(37, 13, 0.1)[0], drawn(4, 13).requires_grad_()
    with unchanged_weights():
        with torch.inference_mode():
            linear(x, weight)
        linear(x, weight).sum().backward()
    assert len(products) == 2
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, 13))


def test_a_sparse_model_gives_the_logits_of_dense_products(products, monkeypatch):
    config = ModelConfig(
        vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=None, bigram=True
    )
    transformer = Transformer(config)
    layers = [module for module in transformer.modules() if isinstance(module, Linear)]
    for seed, layer in enumerate(layers):
        kept = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
        layer.weight.data = drawn(*kept.shape, seed=seed) / 2 * kept
    tokens = torch.randint(0, 50, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), unchanged_weights():
        found = transformer(tokens)
        assert len(products) == len(layers) == 9
        monkeypatch.setenv("WIREWORK_TRITON", "0")
        monkeypatch.setenv(sparse_linear.VARIABLE, "0")
        expected = transformer(tokens)
    assert len(products) == 9
    limit = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=limit)
