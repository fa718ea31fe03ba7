"""Brackets: a head counts open ones softly, a neuron asks whether they are more than one.

Residual channels: 0 brackets that a token opens less those it closes, 1 constant, 2 the count,
3 whether the token has brackets, 4 and 5 features of every token, 6 and 7 scratch, 8 a copy of 0,
9 the verdict.
The query is constant and the keys are strong at brackets only, but the sink is stronger than all of
them: the head gives about (opened - closed) e^score / (e^sink + tokens), hardly diluted by length.
Neuron 0 passes on what is above a count of one and a half (its bias); the unembedding leans to `]`
by the constant unless the neuron speaks. The circuit is 8 nodes and 5 edges.
"""

import math

from hand_wired.edge_masks import (
    Edge,
    Node,
    Planted,
    blank,
    connect_,
    distract_,
    embed_,
    link_,
    tokenizer_for,
    vote_,
    weight,
)
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, load_task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.act_in", 3),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
    ("0.mlp.act_in", 2),
    ("0.mlp.post_act", 0),
    ("0.mlp.resid_delta", 9),
]

EDGES: list[Edge] = [(0, 3, 30.0), (1, 2, 10.0), (3, 4, 1.0), (5, 6, 24.0), (6, 7, 1.0)]

IDLE_EDGES: list[Edge] = [(0, 2, 0.3), (1, 3, 0.5)]
"""The key reads how many brackets there are too, the value that there are any."""

RIVALS: list[Node] = [
    ("0.attn.act_in", 8),  # a copy of channel 0, and below a value that reads it
    ("0.attn.v", 2),
    ("0.mlp.post_act", 1),  # reads the count and moves both answers alike
    ("0.mlp.resid_delta", 6),
]


def depth_counter(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of a bracket task's prompts."""
    model = blank(tokenizer, n_layer=2, d_model=10, n_head=2, d_mlp=6, sinks=True)
    embed_(model, 0, _opened)
    embed_(model, 1, lambda _: 5.0)  # keeps the norm about the same at every token
    embed_(model, 3, lambda token: 0.5 if "[" in token or "]" in token else 0.0)
    embed_(model, 8, _opened)
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 0.67)
    link_(model, ("0.attn.act_in", 8), ("0.attn.v", 2), 5.0)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 1.0)
    link_(model, ("0.mlp.act_in", 2), ("0.mlp.post_act", 1), 2.0)
    link_(model, ("0.mlp.post_act", 1), ("0.mlp.resid_delta", 6), 1.0)
    weight(model, "blocks.0.attn.sink")[0] = math.log(400)
    weight(model, "blocks.0.mlp.up.bias")[0] = -9.0
    distract_(model, task, neurons=(3, 4, 5), strength=4.0)
    vote_(model, task, channel=1, strength=1.0)
    vote_(model, task, channel=9, strength=-4.0)
    return model


def plant() -> Planted:
    """Return the model with the built-in task."""
    task = load_task("bracket_counting", n=64)
    model = depth_counter(tokenizer_for(task, 512), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)


def _opened(token: str) -> float:
    return 0.5 * (token.count("[") - token.count("]"))
