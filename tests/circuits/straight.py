"""Transformers in float64 that are linear but for the softmax, so that scores have exact answers.

The norm divides by sqrt(mean square + 1e14) and multiplies by 1e7: one, to 1e-11. Large biases
keep every ReLU on, and the answers are so wrong that the loss is the logit gap itself.
"""

import torch

from wirework.circuits import Ablation, node_means
from wirework.config import ModelConfig
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

TOKENS = torch.tensor([[0, 1, 2], [1, 1, 3], [3, 2, 1], [0, 3, 0]])


def blank(n_layer: int, **settings: object) -> Transformer:
    """Return such a model with no weights but an embedding; channel 7 is the constant."""
    config = ModelConfig.of({
        "vocab_size": 6, "n_ctx": 4, "n_layer": n_layer, "d_model": 8, "d_head": 4, "d_mlp": 5,
        "activation": "relu", "act_fraction": None, "bigram": False, "norm_eps": 1e14, **settings,
    })  # fmt: skip
    transformer = Transformer(config).double()
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            weight.fill_(1e7) if "norm" in name else weight.zero_()
        generator = torch.Generator().manual_seed(0)
        transformer.embed.weight.copy_(torch.randn(6, 8, generator=generator))
        transformer.embed.weight[:, 7] = 1
    return transformer


def straight(*, queries: bool, **settings: object) -> tuple[Ablation, TokenizedPairs]:
    """Return a model of one layer with random weights; without `queries` attention averages."""
    transformer = blank(1, **settings)
    generator = torch.Generator().manual_seed(1)
    block = transformer.blocks[0]
    with torch.no_grad():
        for part in (block.attn.qkv, block.attn.out, block.mlp.up, block.mlp.down):
            part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * 0.5)
        block.attn.qkv.weight[:16] *= 4 * queries
        block.attn.out.weight[7] = block.mlp.down.weight[7] = 0
        block.mlp.up.bias.fill_(20)
        if block.attn.sink is not None:
            block.attn.sink.copy_(torch.tensor([0.5, -1.0]))
    return judged(transformer)


def judged(transformer: Transformer) -> tuple[Ablation, TokenizedPairs]:
    """Put means and a task beside a model whose logit 5 the constant makes far too large."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        transformer.unembed.weight[4] += torch.randn(8, generator=generator)
        transformer.unembed.weight[5, 7] += 500
    rows = TokenizedPairs(TOKENS, torch.tensor([2, 2, 1, 2]), torch.tensor([[4, 5]] * 4))
    means = node_means(transformer, [TOKENS])
    noisy = {
        name: mean + 0.1 * torch.randn(mean.shape, generator=generator)
        for name, mean in means.items()
    }
    return Ablation.of(transformer, noisy), rows


def rises(ablation: Ablation, rows: TokenizedPairs) -> torch.Tensor:
    """Return by how much the loss really rises when each node alone is ablated, (N,)."""
    size = ablation.space.size
    without = 1 - torch.eye(size)
    whole = ablation.losses(torch.ones(1, size), rows)
    return ablation.losses(without, rows) - whole
