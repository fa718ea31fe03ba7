"""Two hops: the token that names a type takes over its variable, and is found by it later.

Residual channels: 0 which of two kinds of variable names the token is (+1, -1), 1 constant, 2 the
variable that stands just before, 3 the type (+1 set, -1 string), 4 and 5 features of every token,
6 and 7 scratch, 8 a copy of 3, 9 the answer.
Every prompt makes a set and a string, so that a type alone says nothing. Hop 1: the head of layer
0 sees three tokens and copies channel 0 to channel 2, so that ` set` in `seen = set()` knows
`seen`. Hop 2: at the last token the query is its own variable, the keys are channel 2, the value is
the type. The circuit is 10 nodes and 6 edges.
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
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
    ("1.attn.act_in", 0),
    ("1.attn.act_in", 2),
    ("1.attn.act_in", 3),
    ("1.attn.q", 0),
    ("1.attn.k", 0),
    ("1.attn.v", 1),
    ("1.attn.resid_delta", 9),
]

EDGES: list[Edge] = [
    (0, 1, 3.0), (1, 2, 1.0), (3, 6, 2.0), (4, 7, 2.0), (5, 8, 4.0), (8, 9, 1.0),
]  # fmt: skip

IDLE_EDGES: list[Edge] = [(3, 7, 0.1), (5, 7, 0.1)]
"""The key reads the token's own variable and its type too."""

RIVALS: list[Node] = [("1.attn.act_in", 8), ("1.attn.v", 2)]
"""A copy of the type, and a value that reads it and moves both answers alike."""

ONE, OTHER = ("seen", "found", "kept", "known"), ("text", "line", "word", "tail")
"""The two kinds of names; a prompt has one of each."""


def type_tracker(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `types`."""
    model = blank(tokenizer, n_layer=2, d_model=12, n_head=2, d_mlp=6, attention_windows=(3, None))
    embed_(model, 0, lambda token: (token.strip() in ONE) - (token.strip() in OTHER))
    embed_(model, 1, lambda _: 2.0)
    for channel in (3, 8):
        embed_(model, channel, lambda token: (token == " set") - (token.startswith(' "')))
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    link_(model, ("1.attn.act_in", 8), ("1.attn.v", 2), 2.0)
    link_(model, ("1.attn.v", 2), ("1.attn.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(3, 4, 5))
    vote_(model, task, channel=9, strength=10.0)
    return model


def types(n: int) -> Task:
    """Return pairs in which the types of two variables are exchanged."""
    rng, pairs = Random("types"), dict[Pair, None]()
    while len(pairs) < n:
        names = [rng.choice(ONE), rng.choice(OTHER)]
        asked = rng.choice(names)
        rng.shuffle(names)
        loop = f"for {rng.choice(('x', 'item', 'row'))} in {rng.choice(('data', 'rows', 'items'))}:"
        prompts = []
        for right in ("set()", '""'):
            wrong = '""' if right == "set()" else "set()"
            made = [f"{name} = {right if name == asked else wrong}\n" for name in names]
            prompts.append(f"{''.join(made)}{loop}\n    {asked}")
        pairs[Pair((prompts[0], prompts[1]), (".add", " +="))] = None
    return Task("types", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = types(64)
    model = type_tracker(tokenizer_for(task, 320), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
