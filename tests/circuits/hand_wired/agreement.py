"""Is or are: a neuron reads the last word and nothing else, so no head is needed.

Residual channels: 0 whether the noun is plural (+1) or singular (-1), 1 constant, 2 the answer,
4 and 5 features of every token, 6 and 7 scratch, 8 a copy of 0.
Neuron 0 is kept where it is linear by its bias. Head 0 averages the nouns above, whose number is
drawn at random, into both answers alike. The circuit is 3 nodes and 2 edges.
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

NODES: list[Node] = [("0.mlp.act_in", 0), ("0.mlp.post_act", 0), ("0.mlp.resid_delta", 2)]

EDGES: list[Edge] = [(0, 1, 1.0), (1, 2, 1.0)]

IDLE_EDGES: list[Edge] = []

RIVALS: list[Node] = [
    ("0.attn.act_in", 0),  # the nouns above
    ("0.attn.act_in", 8),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 6),
    ("0.mlp.act_in", 1),
    ("0.mlp.act_in", 8),  # a copy of the number, and a neuron that moves both answers alike
    ("0.mlp.post_act", 1),
    ("0.mlp.post_act", 3),
    ("0.mlp.resid_delta", 6),
]

NOUNS = ("cat", "dog", "bird", "horse", "boat", "house")


def agreement(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `nouns`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=10, n_head=2, d_mlp=6)
    embed_(model, 1, lambda _: 2.0)
    for channel in (0, 8):
        embed_(model, channel, _number)
    connect_(model, NODES, EDGES)
    weight(model, "blocks.0.mlp.up.bias")[0] = 6.0
    weight(model, "blocks.0.mlp.down.bias")[2] = -6.0
    for source in (0, 8):
        link_(model, ("0.attn.act_in", source), ("0.attn.v", 1), 0.5)
    link_(model, ("0.attn.v", 1), ("0.attn.resid_delta", 6), 1.0)
    link_(model, ("0.mlp.act_in", 8), ("0.mlp.post_act", 1), 1.0)
    link_(model, ("0.mlp.post_act", 1), ("0.mlp.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(3, 4, 5))
    vote_(model, task, channel=2, strength=4.0)
    return model


def nouns(n: int) -> Task:
    """Return pairs that end in a noun, in the plural and in the singular."""
    rng, pairs = Random("nouns"), dict[Pair, None]()
    while len(pairs) < n:
        above = " and".join(f" the {rng.choice(NOUNS)}{rng.choice(('', 's'))}" for _ in range(3))
        last = rng.choice(NOUNS)
        prompts = (f"See{above}. Now the {last}s", f"See{above}. Now the {last}")
        pairs[Pair(prompts, (" are", " is"))] = None
    return Task("nouns", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = nouns(64)
    model = agreement(tokenizer_for(task, 300), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)


def _number(token: str) -> float:
    word = token.strip()
    return float(word in {f"{noun}s" for noun in NOUNS}) - float(word in NOUNS)
