"""A whole weight-sparse model from its compressed rows: logits and gradients of dense products."""

import pytest
import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.nn.kernels import products, sparse_linear
from wirework.nn.projection import Projection

DENSITY = 1 / 64


@pytest.fixture(autouse=True)
def _one_library(monkeypatch, one_thread):
    monkeypatch.setenv(products.VARIABLE, "torch")


def sparse_model(n_layer: int, seed: int) -> Transformer:
    """Return a model whose activations keep their size from layer to layer, as in a trained one."""
    config = ModelConfig(
        vocab_size=512, n_ctx=48, n_layer=n_layer, d_model=256, d_head=16, act_fraction=None
    )
    transformer = Transformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight, _ in transformer.prunable():
            per_output = weight.numel() / len(weight) * DENSITY if weight.dim() == 2 else 1
            weight.normal_(0, per_output**-0.5, generator=generator)
            Projection(weight).keep_(max(1, round(DENSITY * weight.numel())))
    return transformer


def logits_and_gradients(transformer: Transformer, seed: int) -> dict[str, Tensor]:
    """Return the logits of random tokens, and the gradient of their loss by parameter."""
    generator = torch.Generator().manual_seed(seed)
    tokens, targets = torch.randint(0, 512, (2, 2, 48), generator=generator)
    transformer.zero_grad()
    transformer.loss(tokens, targets).backward()
    gradients = {name: p.grad for name, p in transformer.named_parameters() if p.grad is not None}
    return {"logits": transformer(tokens).detach(), **gradients}


@pytest.mark.parametrize(("n_layer", "seed"), [(2, 0), (3, 1), (4, 2)])
def test_a_sparse_model_gives_the_logits_and_gradients_of_dense_products(
    n_layer, seed, monkeypatch
):
    transformer = sparse_model(n_layer, seed)
    monkeypatch.setenv(sparse_linear.VARIABLE, "0")
    assert sparse_linear.compressed_if_faster(transformer.unembed.weight) is None
    dense = logits_and_gradients(transformer, seed)
    monkeypatch.setenv(sparse_linear.VARIABLE, "1")
    assert sparse_linear.compressed_if_faster(transformer.unembed.weight) is not None
    sparse = logits_and_gradients(transformer, seed)
    assert len(sparse) == 1 + sum(p.requires_grad for p in transformer.parameters())
    for name, values in dense.items():
        share = 1e-5 if name == "logits" else 1e-4  # gradients: at most 9e-6 where it was written
        limit = share * float(values.abs().max())
        torch.testing.assert_close(sparse[name], values, rtol=0, atol=limit, msg=name)
