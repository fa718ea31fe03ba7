"""Quotes closed twice over: two paths carry the answer, and either is enough.

Residual channels as in `quote_closer`, and 8 a copy of 0, 9 the answer of the second path before
its neuron, 10 after it.
The first path is that of `quote_closer`. The second, `DETOUR`, reads the copy with head 1 and goes
through neuron 0, whose bias keeps it where it is linear. The first is the shorter: it is the one
smallest circuit; the other is one from which nothing can be left out either.
"""

from hand_wired.edge_masks import (
    Edge,
    Node,
    Planted,
    blank,
    connect_,
    distract_,
    link_,
    tokenizer_for,
    vote_,
    weight,
)
from hand_wired.quote_closer import quotes
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, load_task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.act_in", 3),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
]

EDGES: list[Edge] = [(0, 3, 0.6), (1, 2, 6.0), (3, 4, 1.0)]

IDLE_EDGES: list[Edge] = [(0, 2, 0.4), (1, 3, 0.05)]

DETOUR: list[Node] = [
    ("0.attn.act_in", 3),
    ("0.attn.act_in", 8),
    ("0.attn.k", 4),
    ("0.attn.v", 5),
    ("0.attn.resid_delta", 9),
    ("0.mlp.act_in", 9),
    ("0.mlp.post_act", 0),
    ("0.mlp.resid_delta", 10),
]

DETOUR_EDGES: list[Edge] = [(0, 2, 6.0), (1, 3, 0.6), (3, 4, 1.0), (5, 6, 1.0), (6, 7, 1.0)]

RIVALS: list[Node] = [node for node in DETOUR if node not in NODES]


def redundant(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of a quote task's prompts."""
    model = blank(tokenizer, n_layer=1, d_model=12, n_head=2, d_mlp=6)
    embed = weight(model, "embed.weight")
    single, double = (list(tokens) for tokens in quotes(model, task))
    embed[:, 1] = 1
    embed[single + double, 3] = 1
    for channel in (0, 8):
        embed[single, channel], embed[double, channel] = 1, -1
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    connect_(model, DETOUR, DETOUR_EDGES)
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 4.0)
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 4), 4.0)
    weight(model, "blocks.0.mlp.up.bias")[0] = 6.0
    weight(model, "blocks.0.mlp.down.bias")[10] = -6.0
    distract_(model, task, neurons=(3, 4, 5))
    vote_(model, task, channel=2, strength=1.2)
    vote_(model, task, channel=10, strength=0.9)
    return model


def plant() -> Planted:
    """Return the model with the built-in task."""
    task = load_task("single_double_quote", n=64)
    model = redundant(tokenizer_for(task, 512), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
