"""Quotes closed by two circuits that have no node in common.

The model of `redundant`, in which both paths read that a token opens a string from channel 3. Here
the second path reads it from a channel of its own, 11.
"""

from hand_wired.edge_masks import Node, link_, tokenizer_for, weight
from hand_wired.quote_closer import quotes
from hand_wired.redundant import DETOUR, redundant
from wirework.data import Tokenizer
from wirework.model import Model
from wirework.tasks import Task, load_task

OTHER_NODES: list[Node] = [DETOUR[1], ("0.attn.act_in", 11), *DETOUR[2:]]
"""The second circuit; the first is that of `redundant`."""


def two_circuits(tokenizer: Tokenizer, task: Task) -> Model:
    """Wire the model for the tokens of a quote task's prompts."""
    model = redundant(tokenizer, task)
    opening = [token for tokens in quotes(model, task) for token in tokens]
    weight(model, "embed.weight")[opening, 11] = 1
    link_(model, ("0.attn.act_in", 3), ("0.attn.k", 4), 0.0)
    link_(model, ("0.attn.act_in", 11), ("0.attn.k", 4), 6.0)
    return model


def plant() -> tuple[Model, Task]:
    """Return the model with the built-in task."""
    task = load_task("single_double_quote", n=64)
    return two_circuits(tokenizer_for(task, 512), task), task
