"""A model whose neurons are known, and text to see them in.

Attention sees a token and the one before it, weighs both alike and writes the second copy of what
it sees beside the first, so that a neuron can tell a token from the one before it.
"""

import random
from pathlib import Path

import torch

from wirework.config import ModelConfig
from wirework.data import Prepared, Tokenizer, Tokens
from wirework.data.shards import ShardWriter
from wirework.model import Model
from wirework.nn import Transformer

WORDS = list(range(65, 91)) + list(range(300, 420))  # letters, and whole words of the tokeniser
TOKEN, FIRST, SECOND = 310, 320, 330
"""What neuron 0 fires on; what neuron 1 fires on together, one after the other."""
SITE = "0.mlp.post_act"
TOKEN_NEURON, PAIR_NEURON, DEAD, NOISE, CONSTANT, NEVER_HERE = range(6)


def planted(tokenizer: Tokenizer) -> Model:
    """0: fires on a token; 1: on a pair; 2: never; 3: noise; 4: the same everywhere; 5: spare."""
    place = {word: i for i, word in enumerate(WORDS)}
    rest, n = len(WORDS), len(WORDS) + 1
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=32, n_layer=1, d_model=2 * n, d_head=2 * n,
        d_mlp=6, activation="relu", attention_windows=(2,), sinks=False, bigram=False,
        act_fraction=None,
    )  # fmt: skip
    transformer = Transformer(config)
    block = transformer.blocks[0]
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.zero_()
        for part in (block.norm1, block.norm2, transformer.norm):
            for parameter in part.parameters():
                parameter.fill_(1.0)
        for token in range(config.vocab_size):
            transformer.embed.weight[token, place.get(token, rest)] = 1.0
        block.attn.qkv.weight[-2 * n :] = torch.eye(2 * n)  # v: what is read
        size = 2 * n
        for i in range(n):  # half of each of two tokens, sqrt(size) long each, written beside
            block.attn.out.weight[n + i, i] = 2 / size**0.5
        one = (size / 3) ** 0.5  # three entries of length 1 after the second norm
        up, bias = block.mlp.up.weight, block.mlp.up.bias
        up[TOKEN_NEURON, place[TOKEN]] = 1.0
        up[PAIR_NEURON, place[SECOND]] = up[PAIR_NEURON, n + place[FIRST]] = 1.0
        bias[PAIR_NEURON] = -1.6 * one
        bias[DEAD] = -1.0
        bias[CONSTANT] = 1.0
        up[NEVER_HERE, rest] = 1.0
    return Model(transformer, tokenizer)


def write_text(folder: Path, tokenizer: Tokenizer, seed: int = 0) -> Prepared:
    """Write tokens drawn alike, with the pair put in here and there."""
    generator = random.Random(seed)
    splits = {}
    for name, count in (("train", 6000), ("val", 3000)):
        ids: list[int] = []
        while len(ids) < count:
            ids += [FIRST, SECOND] if generator.random() < 0.02 else [generator.choice(WORDS)]
        writer = ShardWriter(folder / name, "uint16", 10_000)
        writer.append(torch.tensor(ids).numpy().astype("uint16"))
        writer.finish(1)
        splits[name] = Tokens(folder / name)
    return Prepared(folder, tokenizer, splits["train"], splits["val"], "")
