"""Brackets by an average: one head weighs all tokens alike, so that longer prompts dilute it.

Residual channels: 0 brackets that a token opens less those it closes, 1 constant, 2 the average.
The head gives (opened - closed) / (40 + tokens), 40 being its sink; the unembedding leans to `]` by
the constant and to `]]` by the average, level where two brackets are open at about 56 tokens. The
circuit is 3 nodes and 2 edges.
"""

import math

from hand_wired.edge_masks import (
    Edge,
    Node,
    Planted,
    blank,
    connect_,
    embed_,
    tokenizer_for,
    vote_,
    weight,
)
from wirework.tasks import Task, load_task

NODES: list[Node] = [("0.attn.act_in", 0), ("0.attn.v", 1), ("0.attn.resid_delta", 2)]

EDGES: list[Edge] = [(0, 1, 30.0), (1, 2, 20.0)]


def plant(n_ctx: int = 128, task: Task | None = None) -> Planted:
    """Return the model with the built-in task, or with some of its pairs."""
    whole = load_task("bracket_counting", n=96)
    tokenizer = tokenizer_for(whole, 512)
    task = whole if task is None else task
    model = blank(tokenizer, n_layer=1, d_model=4, n_head=1, d_mlp=4, sinks=True, n_ctx=n_ctx)
    embed_(model, 0, lambda token: 0.5 * (token.count("[") - token.count("]")))
    embed_(model, 1, lambda _: 5.0)
    connect_(model, NODES, EDGES)
    weight(model, "blocks.0.attn.sink")[0] = math.log(40)
    vote_(model, task, channel=1, strength=2.0)
    vote_(model, task, channel=2, strength=-4.0)
    return Planted(model, task, NODES, EDGES, [], [])
