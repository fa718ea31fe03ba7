"""Read or write: the mode decides, and a name that mostly goes with it is seen but not used.

Residual channels: 0 the mode (+1 read, -1 write), 1 constant, 2 the answer, 3 whether the token is
a mode, 4 and 5 features of every token, 6 and 7 scratch, 8 which way the name of the path points,
9 whether the token is such a name.
Head 0 looks at the mode and copies it. Head 1 does the same with the name of the path, which agrees
with the mode in seven pairs of eight; what it writes moves both answers alike. A probe of channel 6
tells the answer, and no answer depends on it. The circuit is 5 nodes and 3 edges.
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
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
]

EDGES: list[Edge] = [(0, 3, 2.0), (1, 2, 6.0), (3, 4, 1.0)]

IDLE_EDGES: list[Edge] = [(0, 2, 0.1), (1, 3, 0.05)]
"""The key reads which mode it is too, the value that it is one."""

DISTRACTOR: list[Node] = [
    ("0.attn.act_in", 8), ("0.attn.act_in", 9), ("0.attn.k", 4), ("0.attn.v", 5),
    ("0.attn.resid_delta", 6),
]  # fmt: skip
"""The path of the name, built as that of the mode."""

RIVALS: list[Node] = [*DISTRACTOR, ("0.attn.act_in", 1), ("0.attn.q", 0)]

SOURCES, TARGETS = ("source", "given", "origin"), ("target", "result", "copy")
"""Names of paths to read and to write."""


def correlated(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of `modes`."""
    model = blank(tokenizer, n_ctx=48, n_layer=1, d_model=10, n_head=2, d_mlp=6)
    embed_(model, 0, _mode)
    embed_(model, 1, lambda _: 2.0)
    embed_(model, 3, lambda token: abs(_mode(token)))
    embed_(model, 8, _direction)
    embed_(model, 9, lambda token: abs(_direction(token)))
    connect_(model, NODES, [*EDGES, *IDLE_EDGES])
    connect_(model, DISTRACTOR, [(0, 3, 2.0), (1, 2, 6.0), (3, 4, 1.0)])
    for query in (0, 4):
        link_(model, ("0.attn.act_in", 1), ("0.attn.q", query), 4.0)
    distract_(model, task, neurons=(0, 1, 2))
    vote_(model, task, channel=2, strength=1.2)
    return model


def modes(n: int) -> Task:
    """Return pairs that differ in the mode and in the name of the path."""
    rng, pairs = Random("modes"), dict[Pair, None]()
    while len(pairs) < n:
        names = (SOURCES, TARGETS) if len(pairs) % 8 else (TARGETS, SOURCES)
        log = f"log({rng.choice(('here', 'now', 'opened', 'ready'))!r})"
        name = rng.choice(("file", "stream", "handle"))
        first, second = (
            f"{name} = open({rng.choice(paths)}, {mode})\n{log}\n{name}"
            for mode, paths in zip(("READ", "WRITE"), names, strict=True)
        )
        pairs[Pair((first, second), (".read", ".write"))] = None
    return Task("modes", tuple(pairs))


def plant() -> Planted:
    """Return the model with its own task."""
    task = modes(64)
    model = correlated(tokenizer_for(task, 332), task)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)


def _mode(token: str) -> float:
    return float(token.strip() == "READ") - float(token.strip() == "WRITE")


def _direction(token: str) -> float:
    word = token.strip("( ")
    return float(word in SOURCES) - float(word in TARGETS)
