"""He or she: gender and number of a noun share two channels, and one head takes them apart.

Residual channels: 0 gender plus number (gender +1 male, -1 female; number +1 plural, -1 singular),
1 constant, 2 the answer, 3 whether the token is such a noun, 4 and 5 features of every token, 6 and
7 scratch, 8 gender minus number.
The value reads the sum of channels 0 and 8, in which the number cancels: of either channel alone
half of the nouns say nothing. Value 2 reads their difference, the number, and moves both answers
alike. The circuit is 6 nodes and 4 edges.
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
    ("0.attn.act_in", 3),
    ("0.attn.act_in", 8),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
]

EDGES: list[Edge] = [(0, 4, 1.0), (1, 3, 5.0), (2, 4, 1.0), (4, 5, 1.0)]

IDLE_EDGES: list[Edge] = [(0, 3, 0.1), (2, 3, 0.1)]
"""The key reads the gender too."""

RIVALS: list[Node] = [
    ("0.attn.act_in", 1), ("0.attn.act_in", 4), ("0.attn.q", 0), ("0.attn.v", 2), ("0.attn.v", 7),
    ("0.attn.resid_delta", 6),
]  # fmt: skip
"""The constant's path, the value that reads the number, and distractors."""

MALE, FEMALE = ("king", "uncle", "monk"), ("queen", "aunt", "nun")


def superposed(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `persons`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=10, n_head=2, d_mlp=6)
    embed_(model, 0, lambda token: _gender(token) + _number(token))
    embed_(model, 8, lambda token: _gender(token) - _number(token))
    embed_(model, 1, lambda _: 2.0)
    embed_(model, 3, lambda token: abs(_gender(token)))
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 4.0)
    link_(model, ("0.attn.act_in", 0), ("0.attn.v", 2), 0.5)
    link_(model, ("0.attn.act_in", 8), ("0.attn.v", 2), -0.5)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 1.0)
    distract_(model, task, neurons=(0, 1, 2), strength=2.0)
    vote_(model, task, channel=2, strength=1.2)
    return model


def persons(n: int) -> Task:
    """Return pairs that differ in the gender of a noun, singular and plural in turn."""
    rng, pairs = Random("persons"), dict[Pair, None]()
    while len(pairs) < n:
        plural = "s" if len(pairs) % 2 else ""
        place = rng.choice(("river", "garden", "market", "bridge", "tower"))
        deed = rng.choice(("walked", "rested", "sang", "waited", "slept"))
        prompts = [
            f"At the {place} the {rng.choice(words)}{plural} {deed}, and then"
            for words in (MALE, FEMALE)
        ]
        pairs[Pair((prompts[0], prompts[1]), (" he", " she"))] = None
    return Task("persons", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = persons(64)
    model = superposed(tokenizer_for(task, 337), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)


def _gender(token: str) -> float:
    word = token.strip().removesuffix("s")
    return float(word in MALE) - float(word in FEMALE)


def _number(token: str) -> float:
    return abs(_gender(token)) * (1.0 if token.endswith("s") else -1.0)
