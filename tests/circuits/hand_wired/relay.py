"""Two hops by value: a first head hands the colour to the noun, a second head fetches it there.

Residual channels: 0 the colour (+1 red, -1 blue), 1 constant, 2 the colour that stands just before,
3 whether the token is the noun that the question is about, 4 and 5 features of every token, 6 and 7
scratch, 8 a copy of 0, 9 the answer.
Every prompt has both colours, so that a colour alone says nothing. Hop 1: the head of layer 0 sees
two tokens and copies channel 0 to channel 2. Hop 2: the key is channel 3 and the value is channel
2, which the first head wrote. The circuit is 8 nodes and 5 edges.
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
    ("1.attn.act_in", 2),
    ("1.attn.act_in", 3),
    ("1.attn.k", 0),
    ("1.attn.v", 1),
    ("1.attn.resid_delta", 9),
]

EDGES: list[Edge] = [(0, 1, 3.0), (1, 2, 1.0), (3, 6, 3.0), (4, 5, 6.0), (6, 7, 1.0)]

IDLE_EDGES: list[Edge] = [(3, 5, 0.1)]
"""The key of the second head reads the colour too."""

RIVALS: list[Node] = [
    ("1.attn.act_in", 8), ("1.attn.v", 2), ("1.attn.resid_delta", 6), ("1.attn.q", 0),
]  # fmt: skip
"""A copy of the colour of the token itself, a value that reads it and moves both answers alike."""


def relay(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `colours`."""
    model = blank(
        tokenizer, n_ctx=48, n_layer=2, d_model=12, n_head=2, d_mlp=6, attention_windows=(2, None)
    )
    embed_(model, 1, lambda _: 2.0)
    embed_(model, 3, lambda token: float(token == " ball"))
    for channel in (0, 8):
        embed_(model, channel, lambda token: (token == " red") - (token == " blue"))
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    link_(model, ("1.attn.act_in", 1), ("1.attn.q", 0), 4.0)
    link_(model, ("1.attn.act_in", 8), ("1.attn.v", 2), 2.0)
    link_(model, ("1.attn.v", 2), ("1.attn.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(3, 4, 5))
    vote_(model, task, channel=9, strength=6.0)
    return model


def colours(n: int) -> Task:
    """Return pairs in which the colours of two things are exchanged; one thing is always a ball."""
    rng, pairs = Random("colours"), dict[Pair, None]()
    while len(pairs) < n:
        things = ["ball", rng.choice(("cup", "hat", "kite", "box"))]
        rng.shuffle(things)
        who, where = rng.choice(("Tom", "Ann", "Sam")), rng.choice(("shop", "room", "yard"))
        prompts = []
        for of_ball, of_other in (("red", "blue"), ("blue", "red")):
            first, second = (
                f"{of_ball if thing == 'ball' else of_other} {thing}" for thing in things
            )
            prompts.append(
                f"{who} saw a {first} and a {second} in the {where}. The one to throw is"
            )
        pairs[Pair((prompts[0], prompts[1]), (" red", " blue"))] = None
    return Task("colours", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = colours(64)
    model = relay(tokenizer_for(task, 316), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)
