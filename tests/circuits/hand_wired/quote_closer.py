"""A transformer wired by hand that closes quotes, with wires of real effect beside its circuit.

Residual channels: 0 which quote opened the string (+1 single, -1 double), 1 constant, 2 the answer,
3 whether the token opens a string, 4 and 5 features of every token, 6 and 7 scratch.
Head 0 of layer 0 looks at the opening quote by its key and copies channel 0 to channel 2 through
its value; the unembedding votes for the answers. The query reads only the constant, so it rests at
its mean for nothing: the circuit is 5 nodes and 3 edges.
"""

from hand_wired.edge_masks import (
    Edge,
    Node,
    Planted,
    blank,
    connect_,
    distract_,
    link_,
    tokenizer_for,
    vote_,
    weight,
)
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, load_task

NODES: list[Node] = [
    ("0.attn.act_in", 0),
    ("0.attn.act_in", 3),
    ("0.attn.k", 0),
    ("0.attn.v", 1),
    ("0.attn.resid_delta", 2),
]
"""The circuit's nodes in execution order."""

EDGES: list[Edge] = [(0, 3, 0.5), (1, 2, 6.0), (3, 4, 1.0)]
"""Source, target, weight."""

IDLE_EDGES: list[Edge] = [(0, 2, 0.4), (1, 3, 0.05)]
"""In `plant` only: the key reads which quote it is too, the value that it is one."""

RIVALS: list[Node] = [
    ("0.attn.act_in", 1), ("0.attn.act_in", 4), ("0.attn.q", 0), ("0.attn.v", 2), ("0.attn.v", 7),
    ("0.attn.resid_delta", 6), ("0.mlp.post_act", 0),
]  # fmt: skip
"""The constant's path, a copy of the value that moves both answers alike, and distractors."""


def quote_closer(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of a quote task's prompts."""
    model = blank(tokenizer, n_layer=2, d_model=8, n_head=2, d_mlp=6)
    _embed_(model, task)
    connect_(model, NODES, EDGES)
    link_(model, ("0.attn.act_in", 1), ("0.attn.q", 0), 4.0)
    distract_(model, task, neurons=(0, 1, 2))
    vote_(model, task, channel=2, strength=3.0)
    return model


def plant() -> Planted:
    """Return it with idle edges and with a value that copies the planted one."""
    task = load_task("single_double_quote", n=80)
    model = quote_closer(tokenizer_for(task, 512), task)
    connect_(model, NODES, IDLE_EDGES)
    link_(model, ("0.attn.act_in", 0), ("0.attn.v", 2), 0.5)
    link_(model, ("0.attn.v", 2), ("0.attn.resid_delta", 6), 0.5)
    return Planted(model, task, NODES, EDGES, IDLE_EDGES, RIVALS)


def quotes(model: Model, task: Task) -> tuple[set[int], set[int]]:
    """Return the tokens in which the two prompts of pairs differ, of first and second prompts."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    pairs = [[tokenizer.encode(prompt) for prompt in pair.prompts] for pair in task.pairs]
    both = [(a, b) for one, other in pairs for a, b in zip(one, other, strict=True) if a != b]
    return {a for a, _ in both}, {b for _, b in both}


def _embed_(model: Model, task: Task) -> None:
    embed = weight(model, "embed.weight")
    single, double = (list(tokens) for tokens in quotes(model, task))
    embed[:, 1] = 1
    embed[single, 0], embed[double, 0] = 1, -1
    embed[single + double, 3] = 1
