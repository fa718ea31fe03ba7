"""Three types: one channel says which of three it is, and two neurons ask for its ends.

Residual channels: 0 the type (+1 list, 0 dict, -1 set), 1 constant, 2 the type as the head copies
it, 3 whether the token names a type, 4 and 5 features of every token, 6 and 7 scratch, 8 whether it
is a list, 9 whether it is a set, 10 a copy of 0.
Head 0 looks at the type. Neuron 0 passes on what is above one half of it, neuron 1 what is below
minus one half (their biases); the unembedding leans to the answer of a dict by the constant. Pairs
have any two of the three types. The circuit is 10 nodes and 7 edges.
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
    weight,
)
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Pair, Task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.act_in", 3),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
    ("0.mlp.act_in", 2),
    ("0.mlp.post_act", 0),
    ("0.mlp.post_act", 1),
    ("0.mlp.resid_delta", 8),
    ("0.mlp.resid_delta", 9),
]

EDGES: list[Edge] = [
    (0, 3, 2.0), (1, 2, 6.0), (3, 4, 1.0), (5, 6, 8.0), (5, 7, -8.0), (6, 8, 1.0), (7, 9, 1.0),
]  # fmt: skip

IDLE_EDGES: list[Edge] = [(0, 2, 0.1)]
"""The key reads which type it is too."""

RIVALS: list[Node] = [("0.attn.act_in", 10), ("0.attn.v", 2)]
"""A copy of channel 0, and a value that reads it and moves all answers alike."""

TYPES = {"list": ".append", "dict": ".update", "set": ".add"}
"""The types and their answers."""


def three_valued(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `containers`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=12, n_head=2, d_mlp=6)
    embed_(model, 1, lambda _: 2.0)
    embed_(model, 3, lambda token: float(token.strip() in TYPES))
    for channel in (0, 10):
        embed_(model, channel, lambda token: (token.strip() == "list") - (token.strip() == "set"))
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 4.0)
    link_(model, ("0.attn.act_in", 10), ("0.attn.v", 2), 2.0)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 1.0)
    weight(model, "blocks.0.mlp.up.bias")[:2] = -4.0
    distract_(model, task, neurons=(3, 4, 5))
    _vote_(model, tokenizer)
    return model


def _vote_(model: Model, tokenizer: Tokenizer) -> None:
    unembed = weight(model, "unembed.weight")
    answers = [tokenizer.encode(answer)[0] for answer in TYPES.values()]
    of_list, of_dict, of_set = answers
    unembed[answers, 6], unembed[answers, 7] = 1.0, 0.0
    unembed[of_list, 8] = unembed[of_set, 9] = 4.0
    unembed[of_dict, 1] = 3.0


def containers(n: int) -> Task:
    """Return pairs of any two of the three types, in turn."""
    rng, pairs = Random("containers"), dict[Pair, None]()
    kinds = list(TYPES)
    while len(pairs) < n:
        one, other = kinds[len(pairs) % 3], kinds[(len(pairs) + 1) % 3]
        name = rng.choice(("found", "kept", "seen", "known"))
        loop = f"for {rng.choice(('x', 'item', 'row'))} in {rng.choice(('data', 'rows', 'items'))}:"
        first, second = (f"{name} = {kind}()\n{loop}\n    {name}" for kind in (one, other))
        pairs[Pair((first, second), (TYPES[one], TYPES[other]))] = None
    return Task("containers", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = containers(72)
    model = three_valued(tokenizer_for(task, 317), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
