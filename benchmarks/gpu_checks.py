"""Checks of every kernel on a device against its reference, for `gpu.py`.

References run on the CPU, in float64 where rounding counts. A check raises an error if it fails.
Shapes: B sequences, T tokens, D width, H heads, K channels of a head, V vocabulary.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import Mock, patch

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.step import make_step
from wirework.config import ModelConfig
from wirework.nn import Transformer, abs_top_k
from wirework.nn.device_reads import device_reads_deferred
from wirework.nn.kernels.attention import causal_attention, causal_attention_reference
from wirework.nn.kernels.linear import Linear, linear
from wirework.nn.kernels.loss import next_token_loss
from wirework.nn.kernels.norm import RMSNorm
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.kernels.top_k import abs_top_k_reference
from wirework.nn.kernels.triton.choice import can_run, installed
from wirework.nn.kernels.winners import k_winners
from wirework.nn.projection import Projection, keep_all_

Check = Callable[[str], None]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare with a tolerance relative to the largest expected value."""
    got, expected = got.detach().cpu().double(), expected.detach().double()
    difference, bound = float((got - expected).abs().max()), tolerance * float(expected.abs().max())
    assert difference <= bound, f"off by {difference:.3g}, at most {bound:.3g}"


def check_abs_top_k(device: str) -> None:
    for dtype in DTYPES:
        for width, k in ((40, 10), (256, 64), (1024, 1000), (4096, 1024), (16384, 5)):
            x = normal(20, width).to(dtype)
            x[3], x[4, ::3] = 1, -2.0  # ties
            leaf = x.to(device).requires_grad_()
            kept = abs_top_k(leaf, k)
            kept.sum().backward()
            expected = abs_top_k_reference(x, k)
            assert torch.equal(kept.detach().cpu(), expected), f"{dtype} {width} {k}"
            assert leaf.grad is not None
            assert (leaf.grad.sum(-1) == k).all(), f"gradient, {dtype} {width} {k}"


def check_nan(device: str) -> None:
    x = torch.tensor([[1.0, math.nan, math.inf, 2.0]], device=device)
    try:
        abs_top_k(x, 2)
    except ValueError:
        pass
    else:
        raise AssertionError("AbsTopK accepted a NaN")
    if x.device.type != "cpu":
        with device_reads_deferred() as scalars:
            abs_top_k(x, 2)
        assert bool(scalars[0].isnan())
    weight = x.repeat(3, 1).contiguous()
    assert bool(keep_all_([Projection(weight)], [5]))


def check_projection(device: str) -> None:
    weights = [normal(96, 64, seed=seed) for seed in range(3)] + [normal(64, 96), normal(96)]
    weights[1] = weights[1].bfloat16().float()  # ties
    dims = [0, 1, None, 1, None]
    for k, floor in ((1, 0), (90, 0), (1500, 3), (6000, 2)):
        expected, got = ([weight.clone() for weight in weights] for _ in range(2))
        ks = [min(k, weight.numel()) for weight in weights]
        for weight, count, dim in zip(expected, ks, dims, strict=True):
            Projection(weight, floor=floor, floor_dim=dim).keep_(count)
        got = [weight.to(device) for weight in got]
        pairs = zip(got, dims, strict=True)
        projections = [Projection(w, floor=floor, floor_dim=dim) for w, dim in pairs]
        assert not bool(keep_all_(projections, ks))
        for weight, other in zip(expected, got, strict=True):
            assert torch.equal(weight, other.cpu()), f"k {k}, floor {floor}"


def check_attention(device: str) -> None:
    for width in (8, 16, 64):
        q, k, v = (normal(2, 4, 33, width, seed=seed) for seed in range(3))
        for sink, window in ((None, None), (normal(4), None), (normal(4), 7), (None, 7)):
            leaves = [t.double().requires_grad_() for t in (q, k, v)]
            wide_sink = None if sink is None else sink.double()
            reference: Callable[..., Tensor] = causal_attention_reference
            expected = reference(*leaves, wide_sink, 0.25, window)
            expected.square().sum().backward()
            ours = [t.to(device, copy=True).requires_grad_() for t in (q, k, v)]
            got = causal_attention(
                *ours, sink=None if sink is None else sink.to(device), scale=0.25, window=window
            )
            got.square().sum().backward()
            close(got, expected, 1e-3)
            for leaf, other in zip(leaves, ours, strict=True):
                assert leaf.grad is not None
                assert other.grad is not None
                close(other.grad, leaf.grad, 3e-3)


def check_loss(device: str) -> None:
    state, weight, bias = normal(700, 48), normal(90, 48, seed=1), normal(90, seed=2)
    bigram = normal(90, 90, seed=3)
    tokens, targets = torch.randint(0, 90, (2, 700), generator=torch.Generator().manual_seed(0))
    leaves = [t.double().requires_grad_() for t in (state, weight, bias, bigram)]
    logits = leaves[0] @ leaves[1].t() + leaves[2] + leaves[3][tokens]
    expected = F.cross_entropy(logits, targets)
    expected.backward()
    ours = [t.to(device).requires_grad_() for t in (state, weight, bias, bigram)]
    got = next_token_loss(
        ours[0], ours[1], targets.to(device), bigram=ours[3], tokens=tokens.to(device), bias=ours[2]
    )
    got.backward()
    close(got, expected, 1e-4)
    for leaf, other in zip(leaves, ours, strict=True):
        assert leaf.grad is not None
        assert other.grad is not None
        close(other.grad, leaf.grad, 3e-3)


def check_norm(device: str) -> None:
    x, grad = normal(60, 48), normal(60, 48, seed=1)
    leaf = x.double().requires_grad_()
    F.rms_norm(leaf, (48,)).backward(grad.double())
    ours = x.to(device).requires_grad_()
    RMSNorm(48).to(device)(ours).backward(grad.to(device))
    assert leaf.grad is not None
    assert ours.grad is not None
    close(ours.grad, leaf.grad, 1e-5)


def check_winners(device: str) -> None:
    results = []
    for place in ("cpu", device):
        leaf = normal(20, 64).to(place).requires_grad_()
        mask = k_winners(leaf, 8)
        (mask * normal(20, 64, seed=1).to(place)).sum().backward()
        assert leaf.grad is not None
        results.append((mask.detach().cpu(), leaf.grad.cpu()))
    assert torch.equal(results[0][0], results[1][0])
    close(results[1][1], results[0][1], 1e-3)


def check_model(device: str) -> None:
    config = ModelConfig(
        vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=0.25, bigram=True
    )
    tokens, targets = torch.randint(0, 50, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for place in ("cpu", device):
        transformer = Transformer(config).to(place)
        loss = transformer.loss(tokens.to(place), targets.to(place))
        loss.backward()
        losses.append(loss.detach().cpu())
        gradients.append([p.grad.cpu() for p in transformer.parameters() if p.grad is not None])
    close(losses[1], losses[0], 1e-4)
    for expected, got in zip(*gradients, strict=True):
        close(got, expected, 1e-2)


def check_waits(device: str) -> None:
    """A step of each variant, in which torch raises an error where the host waits."""
    for variant in ("dense", "weight-sparse"):
        step = make_step(variant, (64, 2, 32, 2), device, "bfloat16")
        step()
        if device != "cpu":
            torch.cuda.set_sync_debug_mode("error")
        try:
            with patch("wirework.training.loop.read_numbers", return_value={}):  # the one wait
                step()
        finally:
            if device != "cpu":
                torch.cuda.set_sync_debug_mode("default")


def has_triton(device: str) -> bool:
    """Return whether Triton's kernels can be checked; print a line if not."""
    found = installed() and can_run(torch.device(device))
    if not found:
        print("        triton left out: it needs a GPU and the package triton")
    return found


def check_triton(device: str) -> None:
    """Triton's kernels, where triton is installed and can run: on a GPU or in its interpreter."""
    if not has_triton(device):
        return
    from wirework.nn.kernels.triton import abs_top_k as kernels
    from wirework.nn.kernels.triton.sparse_product import entry_positions, sparse_product

    for dtype in DTYPES:
        for width, k in ((40, 10), (256, 64), (1000, 999), (4096, 1024), (16384, 5)):
            x = normal(20, width).to(dtype)
            x[3], x[4, ::3] = 1, -2.0
            kept, mask = kernels.select(x.to(device), k)
            assert torch.equal(kept.cpu(), abs_top_k_reference(x, k)), f"{dtype} {width} {k}"
            assert torch.equal(kernels.pass_kept(x.to(device), mask), x.to(device) * mask)
    weight = normal(96, 64) * (normal(96, 64, seed=1) > 1.5)
    x = normal(500, 64, seed=2)
    matrix = weight.to_sparse_csr()
    pattern = entry_positions(matrix.crow_indices().to(device), matrix.col_indices().to(device), 64)
    values = matrix.values().to(device, copy=True).requires_grad_()
    leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
    expected = leaves[0] @ leaves[1].t()
    ours = x.to(device, copy=True).requires_grad_()
    got = sparse_product(ours, values, pattern)
    grad = normal(500, 96, seed=3)
    expected.backward(grad.double())
    got.backward(grad.to(device))
    close(got, expected, 1e-5)
    gradients = [t.grad for t in (ours, leaves[0], values, leaves[1])]
    to_x, expected_x, to_values, expected_weight = (g for g in gradients if g is not None)
    close(to_x, expected_x, 1e-5)
    close(to_values, expected_weight[weight != 0], 1e-5)


def check_triton_layer(device: str) -> None:
    """A layer of few weights by Triton, with the gradients of its input and bias."""
    if not has_triton(device):
        return
    weight = normal(96, 64) * (normal(96, 64, seed=1) > 1.5)
    bias, x, grad = normal(96, seed=2), normal(5, 100, 64, seed=3), normal(5, 100, 96, seed=4)
    for dtype, tolerance in zip(DTYPES, (1e-5, 2e-2, 2e-3), strict=True):
        rounded = [t.to(dtype) for t in (x, bias, weight, grad)]
        leaves = [t.double().requires_grad_() for t in rounded[:2]]
        expected = F.linear(leaves[0], rounded[2].double(), leaves[1])
        expected.backward(rounded[3].double())
        ours = [t.to(device, copy=True).requires_grad_() for t in rounded[:2]]
        with triton_products() as product:
            got = linear(ours[0], rounded[2].to(device), ours[1])
        assert product.call_count == 1, f"{dtype} did not use Triton"
        got.backward(rounded[3].to(device))
        close(got, expected, tolerance)
        for leaf, other in zip(leaves, ours, strict=True):
            assert leaf.grad is not None
            assert other.grad is not None
            close(other.grad, leaf.grad, tolerance)


def check_triton_model(device: str) -> None:
    """Logits of a weight-sparse model whose layers are all computed by Triton."""
    if not has_triton(device):
        return
    config = ModelConfig(
        vocab_size=50, d_model=32, d_head=8, n_layer=2, n_ctx=16, act_fraction=None, bigram=True
    )
    transformer = Transformer(config)
    layers = [module for module in transformer.modules() if isinstance(module, Linear)]
    for seed, layer in enumerate(layers):
        shape = layer.weight.shape
        layer.weight.data = normal(*shape, seed=seed) * (normal(*shape, seed=seed + 99) > 1.5)
    tokens = torch.randint(0, 50, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = transformer(tokens)
        with triton_products() as product:
            got = transformer.to(device)(tokens.to(device))
    assert product.call_count == len(layers), f"{product.call_count} of {len(layers)} layers"
    close(got, expected, 1e-4)


@contextmanager
def triton_products() -> Iterator[Mock]:
    """Compute layers of few weights by Triton in a `with` block; yield the counted product."""
    from wirework.nn.kernels.triton.sparse_product import sparse_product

    settings = {"WIREWORK_TRITON": "1", "WIREWORK_SPARSE": "0.125"}
    counted = patch(f"{sparse_product.__module__}.sparse_product", wraps=sparse_product)
    with unchanged_weights(), patch.dict(os.environ, settings), counted as product:
        yield product


CHECKS: dict[str, Check] = {
    "AbsTopK": check_abs_top_k,
    "NaN": check_nan,
    "projection": check_projection,
    "attention": check_attention,
    "loss": check_loss,
    "RMSNorm": check_norm,
    "winners": check_winners,
    "Triton": check_triton,
    "layer by Triton": check_triton_layer,
    "model by Triton": check_triton_model,
    "model": check_model,
    "no waits in a step": check_waits,
}
