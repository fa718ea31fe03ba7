"""What the hand-wired models share: a blank transformer, and weights set by the nodes they join."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wirework.config import ModelConfig
from wirework.data import Tokenizer, train_tokenizer
from wirework.data.answers import Answer
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import Task

Node = tuple[str, int]
"""Site and channel."""

Edge = tuple[int, int, float]
"""Source and target as places among the nodes, and the weight."""


@dataclass(frozen=True)
class Planted:
    """A hand-wired model, the task it does, and what a finder should find in it."""

    model: Model
    task: Task
    nodes: Sequence[Node]
    """The smallest circuit, in execution order."""
    edges: Sequence[Edge]
    """What it needs, by source, then target, as `Circuit.edges`."""
    idle_edges: Sequence[Edge]
    """Nonzero weights between its nodes that it does not need."""
    rivals: Sequence[Node]
    """Nodes beside it that search has to tell from it; with `nodes` at most 12."""


class Corpus:
    """Tokens of a task's own prompts, with the face of `wirework.data.Tokens`."""

    def __init__(self, tokenizer: Tokenizer, task: Task) -> None:
        texts = [prompt for pair in task.pairs for prompt in pair.prompts]
        self.ids = torch.tensor([i for ids in tokenizer.encode_batch(texts) for i in ids])
        self.n_tokens = len(self.ids)
        self.fingerprint = hashlib.sha256(self.ids.numpy().tobytes()).hexdigest()

    def slice(self, start: int, length: int) -> np.ndarray:
        return self.ids[start : start + length].numpy()


def tokenizer_for(task: Task, size: int) -> Tokenizer:
    """Train a tokeniser on a task's own prompts, its answers single tokens."""
    texts = [prompt for pair in task.pairs for prompt in pair.prompts]
    ends = {
        answer: Answer(task.name, prompt, answer)
        for pair in task.pairs
        for prompt, answer in zip(pair.prompts, pair.answers, strict=True)
    }
    return train_tokenizer(texts, size, list(ends.values()))


def blank(tokenizer: Tokenizer, **shape: Any) -> Model:
    """Return a model whose weights are all zero and whose norms have gain 1."""
    plain: dict[str, Any] = {
        "n_ctx": 80,
        "d_head": 4,
        "act_fraction": None,
        "sinks": False,
        "bigram": False,
    }
    transformer = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **{**plain, **shape}))
    with torch.no_grad():
        for name, weight in transformer.named_parameters():
            if "norm" not in name:
                weight.zero_()
    return Model(transformer, tokenizer)


@torch.no_grad()
def connect_(model: Model, nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
    """Set the weight of each edge."""
    for source, target, weight in edges:
        link_(model, nodes[source], nodes[target], weight)


@torch.no_grad()
def link_(model: Model, source: Node, target: Node, weight: float) -> None:
    """Set the weight that joins two nodes of a layer."""
    rows, first = _written(model, target)
    rows[first + target[1], source[1]] = weight


def weight(model: Model, name: str) -> Tensor:
    """Return a parameter by name, to be changed in place."""
    return dict(model.transformer.named_parameters())[name].data


def _written(model: Model, target: Node) -> tuple[Tensor, int]:
    """Return the matrix that writes a node's site, and which of its rows is the site's first."""
    layer, part, kind = target[0].split(".")
    if kind in "qkv":
        inner = model.config.n_head * model.config.d_head
        return weight(model, f"blocks.{layer}.attn.qkv.weight"), inner * "qkv".index(kind)
    module = {"attn": "out", "mlp": "up" if kind == "post_act" else "down"}[part]
    return weight(model, f"blocks.{layer}.{part}.{module}.weight"), 0


def embed_(model: Model, channel: int, value: Callable[[str], float]) -> None:
    """Set an embedding channel by the text of each token."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    values = [value(tokenizer.token(i)) for i in range(tokenizer.vocab_size)]
    weight(model, "embed.weight")[: len(values), channel] = torch.tensor(values)


def vote_(model: Model, task: Task, channel: int, strength: float) -> None:
    """Let a channel speak for the first answer of a task's pairs and against the second."""
    unembed = weight(model, "unembed.weight")
    first, second = _answers(model, task)
    unembed[first, channel], unembed[second, channel] = strength, -strength


def distract_(
    model: Model, task: Task, neurons: tuple[int, int, int], strength: float = 1.0
) -> None:
    """Wires in every layer that change every logit, but hardly the difference of the answers.

    They read channels 4 and 5, random features of the token, and 1, a constant, and write to 6,
    which moves both answers alike, and 7, which moves other tokens.
    """
    generator = torch.Generator().manual_seed(0)
    embed, unembed = weight(model, "embed.weight"), weight(model, "unembed.weight")
    embed[:, 4:6] = torch.randn(len(embed), 2, generator=generator).sign() * 0.5
    first, second, third = neurons
    for layer in range(model.config.n_layer):
        reads, hidden, writes = (
            f"{layer}.mlp.{part}" for part in ("act_in", "post_act", "resid_delta")
        )
        for channel, neuron, into, out in (
            (4, first, 1.0, 0.5), (5, second, -1.0, 0.5), (1, third, 0.5, -0.3),
        ):  # fmt: skip
            link_(model, (reads, channel), (hidden, neuron), into)
            link_(model, (hidden, neuron), (writes, 7 if neuron == second else 6), strength * out)
        link_(model, (f"{layer}.attn.act_in", 4), (f"{layer}.attn.v", 7), 1.0)
        link_(model, (f"{layer}.attn.v", 7), (f"{layer}.attn.resid_delta", 7), strength * 0.5)
    unembed[:100, 7] = 1.0
    unembed[list(_answers(model, task)), 6:8] = torch.tensor([1.0, 0.0])


def _answers(model: Model, task: Task) -> tuple[int, int]:
    """Return the tokens of the first and the second answer."""
    assert model.tokenizer is not None
    first, second = task.encode(model.tokenizer, model.config.n_ctx).answers[0].tolist()
    return first, second
