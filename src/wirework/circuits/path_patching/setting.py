"""A model and the prompts of a task, prepared for path patching.

Shapes: M destinations, S sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuit_format import PathEdge
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.corruption import corrupted, corruption_of
from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.path_patching.patched import Patched, refuse_nonlinear_residual
from wirework.config import AcdcConfig
from wirework.errors import InputError
from wirework.tasks import Task, TokenizedPairs, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model


@dataclass(frozen=True)
class Setting:
    """A model with the prompts of a task, prepared for path patching."""

    model: "Model"
    full_task: Task
    """The task with all its pairs."""
    n_pairs: int
    """Number of its pairs that are used."""
    patched: Patched
    """The model in float64 with these pairs as prompts."""
    config: AcdcConfig
    """Settings of prompts and patching, with the corruption in use; `tau` and `order` matter only
    for a search."""

    @classmethod
    def of(
        cls, model: "Model", task: Task, config: AcdcConfig, *, all_pairs: bool = False
    ) -> "Setting":
        """Draw pairs of a task and compute the ablated values of the model on them.

        Args:
            model: a model with a tokeniser.
            task: the task as loaded.
            config: settings; `tau` and `order` are not used here.
            all_pairs: use all pairs instead of `config.pairs`.

        Raises:
            InputError: the task does not fit the model or lacks the corruption, no pair has prompts
                of equal length, or the model's residual stream is not a sum.
        """
        refuse_nonlinear_residual(model.transformer)
        corruption, tokenizer = corruption_of(task, config), tokenizer_of(model)
        config = config.model_copy(update={"corruption": corruption})
        fitted = corrupted(task.fitted(tokenizer, model.config.n_ctx), corruption, tokenizer)
        batch = tokenize_task(fitted, model)
        pairs = _equal_length_pairs(fitted, batch)
        if not all_pairs and config.pairs < len(pairs):
            pairs = sorted(Random(f"acdc {config.seed}").sample(pairs, config.pairs))
        contrast = Contrast.of(batch.select(torch.tensor(pairs)), symmetric=config.symmetric)
        patched = Patched.of(model.transformer, contrast, config.ablation)
        return cls(model, task, len(pairs), patched, config)


def _equal_length_pairs(task: Task, batch: TokenizedPairs) -> list[int]:
    """Return the indices of the pairs whose two prompts have equal length.

    Raises:
        InputError: the prompts of a pair of a user's file differ in length, or those of every pair
            of a generated task do.
    """
    lengths = (batch.last_positions + 1).view(-1, 2).tolist()
    equal_pairs = [pair for pair, (first, second) in enumerate(lengths) if first == second]
    if len(equal_pairs) < len(lengths) and not task.generated:
        pair = min(set(range(len(lengths))) - set(equal_pairs))
        first, second = lengths[pair]
        raise InputError(
            f"task {task.name}, pair {pair + 1}: the prompts have {first} and {second} tokens; "
            "path edges are patched token by token and need prompts of equal length"
        )
    if not equal_pairs:
        raise InputError(
            f"task {task.name} has no pair whose prompts are of equal length for this tokeniser: "
            "path edges are patched token by token"
        )
    return equal_pairs


def gates_of(graph: Graph, edges: Sequence[PathEdge]) -> Tensor:
    """Return gates (M, S) float64, 1 for some edges and 0 for all others.

    Raises:
        InputError: an edge is not in the graph.
    """
    gates = torch.zeros(len(graph.destinations), len(graph.sources), dtype=torch.float64)
    for edge in edges:
        source, destination = graph.numbered(edge)
        gates[destination, source] = 1
    return gates
