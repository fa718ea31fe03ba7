"""Coverage: the fraction of all edges of its nodes that are in the circuit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.edges import count_edges
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Transformer
from wirework.summaries import Report


@dataclass(frozen=True, repr=False)
class Coverage(Report):
    """Edges of a circuit relative to all edges of its nodes."""

    n_edges: int
    """Number of edges of the circuit."""
    n_touching: int
    """Number of nonzero weights with at least one end at a node of the circuit."""
    share: float | None
    """`n_edges` / `n_touching`; None if no weight touches the circuit."""


def coverage(transformer: Transformer, gates: Tensor, n_edges: int | None = None) -> Coverage:
    """Count the circuit's edges and all edges that touch its nodes.

    Edges are nonzero entries of attention and MLP matrices, as in the circuit size; an edge between
    two kept nodes counts once. Embedding and unembedding entries and connections through the
    residual stream do not count.

    Args:
        transformer: the model.
        gates: (N,), nonzero at the circuit's nodes.
        n_edges: number of edges of the circuit; None for all edges between its nodes.

    Source: Gao et al. 2025: the quote circuit has 9 of the 41 edges of its nodes.
    """
    space = NodeSpace.of(transformer)
    kept = gates != 0
    inside, outside = (space.locate(mask.nonzero().flatten()) for mask in (kept, ~kept))
    n_between = count_edges(transformer, inside)
    n_all = count_edges(transformer, space.locate(torch.arange(space.size)))
    n_touching = n_all - count_edges(transformer, outside)
    n_edges = n_between if n_edges is None else n_edges
    return Coverage(n_edges, n_touching, n_edges / n_touching if n_touching else None)
