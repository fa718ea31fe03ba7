"""Coverage: the fraction of all edges of a circuit's nodes that lie between two of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.edges import count_edges
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Transformer
from wirework.renamed_names import old_arguments
from wirework.summaries import Report, absent


@dataclass(frozen=True, repr=False)
class Coverage(Report):
    """Edges between a circuit's nodes relative to all edges of these nodes."""

    n_edges: int
    """Number of nonzero weights between nodes of the circuit."""
    n_touching: int
    """Number of nonzero weights with at least one end at a node of the circuit."""
    share: float | None
    """`n_edges` / `n_touching`, as in the paper; None if no weight touches the circuit."""
    n_kept_edges: int | None = absent()
    """Number of edges that the circuit keeps."""
    kept_share: float | None = absent()
    """`n_kept_edges` / `n_touching`."""


@old_arguments(n_edges="n_kept_edges")
def coverage(transformer: Transformer, gates: Tensor, n_kept_edges: int | None = None) -> Coverage:
    """Count the circuit's edges and all edges that touch its nodes.

    Edges are nonzero entries of attention and MLP matrices, as in the circuit size; an edge between
    two kept nodes counts once. Embedding and unembedding entries and connections through the
    residual stream do not count.

    Args:
        transformer: the model.
        gates: (N,), nonzero at the circuit's nodes.
        n_kept_edges: number of edges that it keeps; None for all edges between its nodes.

    Source: Gao et al. 2025: the quote circuit has 9 of the 41 edges of its nodes.
    """
    space = NodeSpace.of(transformer)
    kept = gates != 0
    inside, outside = (space.locate(mask.nonzero().flatten()) for mask in (kept, ~kept))
    n_between = count_edges(transformer, inside)
    n_all = count_edges(transformer, space.locate(torch.arange(space.size)))
    n_touching = n_all - count_edges(transformer, outside)
    n_kept_edges = n_between if n_kept_edges is None else n_kept_edges
    shares = [count / n_touching if n_touching else None for count in (n_between, n_kept_edges)]
    return Coverage(n_between, n_touching, shares[0], n_kept_edges, shares[1])
