import pytest
import torch

from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.nn.replaced_weights import weights_replaced

SHAPE = {"vocab_size": 16, "n_ctx": 8, "n_layer": 1, "d_model": 16, "d_head": 8}
TOKENS = torch.arange(8)[None]


def test_the_model_computes_with_the_replacement_and_then_again_with_its_own():
    transformer, other = Transformer(ModelConfig(**SHAPE)), Transformer(ModelConfig(**SHAPE), 1)
    before = transformer(TOKENS)
    theirs = dict(other.named_parameters())
    weights = {p: theirs[name].detach() for name, p in transformer.named_parameters()}
    with weights_replaced(transformer, weights):
        assert torch.equal(transformer(TOKENS), other(TOKENS))
    assert torch.equal(transformer(TOKENS), before)


def test_gradients_reach_the_parameter_through_the_replacement():
    transformer = Transformer(ModelConfig(**SHAPE))
    weight = transformer.blocks[0].mlp.up.weight
    with weights_replaced(transformer, {weight: 3 * weight}):
        transformer.loss(TOKENS, TOKENS).backward()
    tripled = Transformer(ModelConfig(**SHAPE))
    with torch.no_grad():
        tripled.blocks[0].mlp.up.weight.mul_(3)
    tripled.loss(TOKENS, TOKENS).backward()
    assert weight.grad is not None
    assert tripled.blocks[0].mlp.up.weight.grad is not None
    assert torch.allclose(weight.grad, 3 * tripled.blocks[0].mlp.up.weight.grad)


def test_a_tied_embedding_is_replaced_at_both_ends():
    transformer = Transformer(ModelConfig(**SHAPE, tied_embedding=True))
    zeros = torch.zeros_like(transformer.embed.weight)
    with weights_replaced(transformer, {transformer.embed.weight: zeros}):
        assert transformer.unembed.weight is zeros
        assert not transformer.embed(TOKENS).any()


def test_an_error_restores_the_parameters():
    transformer = Transformer(ModelConfig(**SHAPE))
    weight = transformer.unembed.weight
    with (
        pytest.raises(RuntimeError, match="shape"),
        weights_replaced(transformer, {weight: torch.zeros(3, 5)}),
    ):
        transformer(TOKENS)
    assert transformer.unembed.weight is weight
