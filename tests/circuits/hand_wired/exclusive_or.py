"""Two switches: the lamp is lit if they differ, which two neurons compute from their sum.

Residual channels: 0 the first switch (+1 on, -1 off), 1 constant, 2 the sum of both, 4 and 5
features of every token, 6 and 7 scratch, 8 the second switch (+1 open, -1 shut), 9 whether they
agree, 10 a copy of 0.
Head 0 weighs all tokens alike and sums both switches. Neuron 0 passes on a large sum, neuron 1 a
large negative one (their biases), so that both switches alike make one of them speak; the
unembedding leans to ` lit` by the constant. One switch alone says nothing of the answer. The
circuit is 8 nodes and 7 edges.
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
    weight,
)
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Pair, Task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.act_in", 8),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
    ("0.mlp.act_in", 2),
    ("0.mlp.post_act", 0),
    ("0.mlp.post_act", 1),
    ("0.mlp.resid_delta", 9),
]

EDGES: list[Edge] = [
    (0, 2, 16.0), (1, 2, 16.0), (2, 3, 1.0), (4, 5, 8.0), (4, 6, -8.0), (5, 7, 1.0), (6, 7, 1.0),
]  # fmt: skip

IDLE_EDGES: list[Edge] = []

RIVALS: list[Node] = [
    ("0.attn.act_in", 1), ("0.attn.act_in", 10), ("0.attn.v", 2), ("0.attn.resid_delta", 6),
]  # fmt: skip
"""Among them a copy of channel 0, and a value that reads it and moves both answers alike."""

NEURONS = (5, 6)
"""The places of the two neurons among the nodes."""


def exclusive_or(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `switches`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=12, n_head=2, d_mlp=6)
    embed_(model, 1, lambda _: 2.0)
    for channel in (0, 10):
        embed_(model, channel, lambda token: (token == " on") - (token == " off"))
    embed_(model, 8, lambda token: (token == " open") - (token == " shut"))
    connect_(model, NODES, EDGES)
    link_(model, ("0.attn.act_in", 10), ("0.attn.v", 2), 4.0)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 1.0)
    weight(model, "blocks.0.mlp.up.bias")[:2] = -4.0
    distract_(model, task, neurons=(3, 4, 5), strength=2.0)
    vote_(model, task, channel=1, strength=1.0)
    vote_(model, task, channel=9, strength=-2.0)
    return model


def switches(n: int) -> Task:
    """Return pairs in which one of two switches changes, the first and the second in turn."""
    rng, pairs = Random("switches"), dict[Pair, None]()
    while len(pairs) < n:
        a, b = len(pairs) & 1, len(pairs) >> 1 & 1
        flipped = (1 - a, b) if len(pairs) >> 2 & 1 else (a, 1 - b)
        room = rng.choice(("hall", "kitchen", "cellar", "attic", "garage"))
        when = rng.choice(("today", "tonight", "again", "still", "now"))
        lit, dark = (
            f"In the {room} the switch is {('off', 'on')[first]} and the gate is "
            f"{('shut', 'open')[second]}, so {when} the lamp is"
            for first, second in sorted(((a, b), flipped), key=lambda state: state[0] == state[1])
        )
        pairs[Pair((lit, dark), (" lit", " dark"))] = None
    return Task("switches", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = switches(64)
    model = exclusive_or(tokenizer_for(task, 335), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
