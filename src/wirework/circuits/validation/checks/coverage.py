"""How much of its nodes' wiring a circuit explains: what they do outside the task."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.edges import count_edges
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Transformer


@dataclass(frozen=True)
class Coverage:
    """Edges of a circuit among all edges of its nodes."""

    n_edges: int
    """Of the circuit."""
    n_touching: int
    """Nonzero weights with at least one end in the circuit's nodes."""
    share: float | None
    """The first over the second; None if no weight touches the circuit."""


def coverage(transformer: Transformer, gates: Tensor, n_edges: int | None = None) -> Coverage:
    """Count the circuit's edges and all edges that touch its nodes.

    An edge is a nonzero entry of an attention or MLP matrix, as in a circuit's size; one that joins
    two kept nodes counts once, and embedding and unembedding entries do not count. Links along the
    residual stream are no weights and do not count either.

    Args:
        transformer: the model.
        gates: (N,), nonzero at the circuit's nodes.
        n_edges: the circuit's own edges; None for all between its nodes.

    Source: Gao et al. 2025: the quote circuit has 9 of the 41 edges of its nodes.
    """
    space = NodeSpace.of(transformer)
    kept = gates != 0
    inside, outside = (space.locate(part.nonzero().flatten()) for part in (kept, ~kept))
    between = count_edges(transformer, inside)
    every = count_edges(transformer, space.locate(torch.arange(space.size)))
    touching = every - count_edges(transformer, outside)
    own = between if n_edges is None else n_edges
    return Coverage(own, touching, own / touching if touching else None)
