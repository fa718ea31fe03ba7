"""Loops: any `for` in the context pushes ` in`, and a neuron that sees `while` holds it back.

Residual channels: 0 whether the token is `for`, 1 constant, 2 the push towards ` in`, 3 a `while`
just before, 4 and 5 features of every token, 6 and 7 scratch, 8 whether the token is `while`, 9 a
copy of 8.
Layer 0 looks at any `for` among twenty tokens, also at one in a line above. Layer 1 sees five
tokens; where `while` is among them neuron 0 takes off more than a `for` puts on. The unembedding
leans to `:` by the constant. With the neuron at its mean a `for` further up makes
` in` win after `while x`. The circuit is 10 nodes and 7 edges.
"""

from random import Random

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
)
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Pair, Task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
    ("1.attn.act_in", 8),
    ("1.attn.v", 0),
    ("1.attn.resid_delta", 3),
    ("1.mlp.act_in", 3),
    ("1.mlp.post_act", 0),
    ("1.mlp.resid_delta", 2),
]

EDGES: list[Edge] = [
    (0, 1, 4.0), (0, 2, 1.0), (2, 3, 1.0), (4, 5, 5.0), (5, 6, 1.0), (7, 8, 3.0), (8, 9, -0.3),
]  # fmt: skip

IDLE_EDGES: list[Edge] = []

INHIBITOR = 8
"""Its place among the nodes."""

RIVALS: list[Node] = [("1.attn.act_in", 9), ("1.attn.v", 1)]
"""A copy of channel 8, and a value that reads it and moves both answers alike."""

NAMES = ("name", "value", "item", "line", "node", "key", "count", "level")


def inhibited(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `loops`."""
    model = blank(
        tokenizer, n_ctx=48, n_layer=2, d_model=10, n_head=2, d_mlp=6, attention_windows=(20, 5)
    )
    embed_(model, 0, lambda token: float(token.strip() == "for"))
    embed_(model, 1, lambda _: 2.0)
    for channel in (8, 9):
        embed_(model, channel, lambda token: float(token.strip() == "while"))
    connect_(model, NODES, EDGES)
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 1.0)
    link_(model, ("1.attn.act_in", 9), ("1.attn.v", 1), 2.0)
    link_(model, ("1.attn.v", 1), ("1.attn.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(3, 4, 5))
    vote_(model, task, channel=1, strength=-5.7)
    vote_(model, task, channel=2, strength=12.0)
    return model


def loops(n: int) -> Task:
    """Return pairs that differ in the keyword of their last line, many with a loop above it."""
    rng, pairs = Random("loops"), dict[Pair, None]()
    while len(pairs) < n:
        a, b, c = rng.sample(NAMES, 3)
        body = f":\n    {a}.{c}()\n"
        above = f"{c} = {a}\n{a}.{b}()\n{b} = {c}\n"
        above += rng.choice(("", f"for {a} in {b}{body}", f"while {a}{body}"))
        name = rng.choice(NAMES)
        if rng.random() < 0.5:
            name = f"{name}_{rng.choice(NAMES)}"
        pairs[Pair((f"{above}for {name}", f"{above}while {name}"), (" in", ":"))] = None
    return Task("loops", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = loops(64)
    model = inhibited(tokenizer_for(task, 300), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
