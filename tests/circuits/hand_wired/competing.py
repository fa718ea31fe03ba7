"""More rises or more falls: two heads write to one channel with opposite signs, the stronger wins.

Residual channels: 0 whether the token is `up`, 1 constant, 2 the balance, 4 and 5 features of every
token, 6 and 7 scratch, 8 whether the token is `down`, 9 a copy of 0.
Both heads weigh all tokens alike. Head 0 averages channel 0 and adds it, head 1 averages channel 8
and subtracts it. A count of one kind alone says little, since the count of the other varies as
much. The circuit is 5 nodes and 4 edges.
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
    ("0.attn.act_in", 8),
    ("0.attn.v", 1),
    ("0.attn.v", 5),
    ("0.attn.resid_delta", 2),
]

EDGES: list[Edge] = [(0, 2, 20.0), (1, 3, 20.0), (2, 4, 1.0), (3, 4, -1.0)]

IDLE_EDGES: list[Edge] = []

RIVALS: list[Node] = [
    ("0.attn.act_in", 1), ("0.attn.act_in", 4), ("0.attn.act_in", 9), ("0.attn.v", 2),
    ("0.attn.v", 7), ("0.attn.resid_delta", 6), ("0.mlp.post_act", 0),
]  # fmt: skip
"""Among them a copy of channel 0, and a value that reads it and moves both answers alike."""

HEADS = (2, 3)
"""The places of the two values among the nodes."""


def competing(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `moves`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=10, n_head=2, d_mlp=6)
    for channel in (0, 9):
        embed_(model, channel, lambda token: float(token == " up"))
    embed_(model, 8, lambda token: float(token == " down"))
    embed_(model, 1, lambda _: 3.0)
    connect_(model, NODES, EDGES)
    link_(model, ("0.attn.act_in", 9), ("0.attn.v", 2), 4.0)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(0, 1, 2), strength=2.0)
    vote_(model, task, channel=2, strength=6.0)
    return model


def moves(n: int) -> Task:
    """Return pairs in which either the rises or the falls change from few to many."""
    rng, pairs = Random("moves"), dict[Pair, None]()
    while len(pairs) < n:
        same = 2 + len(pairs) % 5  # 2 to 6 words of the kind that both prompts share
        kinds = ("up", "down") if len(pairs) % 2 else ("down", "up")
        prompts = {}
        for count in (same - 2, same + 2):
            words = [kinds[0]] * same + [kinds[1]] * count
            words += ["flat"] * (16 - len(words))
            rng.shuffle(words)
            rises, falls = words.count("up"), words.count("down")
            prompts[rises > falls] = f"Moves: {' '.join(words)}. All in all"
        pairs[Pair((prompts[True], prompts[False]), (" higher", " lower"))] = None
    return Task("moves", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = moves(80)
    model = competing(tokenizer_for(task, 289), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
