"""One small circuit from several candidates: greedy removal of each, then of their unions.

Greedy removal ends in a local minimum, and the size of a mask before it does not predict the size
after it (docs/circuits.md has an example). The union of two cleaned-up circuits has few nodes, so
cleaning it up is cheap, and the result is often smaller than either. This step is ours, not the
paper's.
Shapes: G gates.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.edges import count_edges
from wirework.circuits.pruning.discretise import clean_up
from wirework.circuits.pruning.search_progress import Tries
from wirework.tasks import TokenizedPairs


class CircuitSize(NamedTuple):
    """Size of a circuit; sizes compare by edges, then by nodes."""

    edges: int
    nodes: int


def size_of(ablation: Ablation, gates: Tensor) -> CircuitSize:
    """Return the size of the circuit (G,) with all edges between its nodes."""
    kept = ablation.space.locate(ablation.nodes(gates).nonzero().flatten())
    return CircuitSize(count_edges(ablation.transformer, kept), len(kept))


def cleaned_and_merged(
    ablation: Ablation,
    masks: Sequence[Tensor],
    batch: TokenizedPairs,
    target: float,
    on_done: Callable[[float, float], None],
) -> tuple[Tensor, int]:
    """Clean up each mask, then try to improve on the smallest by its union with each of the others.

    Args:
        ablation: the model with its gates.
        masks: one or more, (G,) each, that reach the target.
        batch: the judging pairs.
        target: task loss in nats.
        on_done: called with the number of masks cleaned up and the number of unions tried so far;
            the current one counts with the estimated fraction that is done.

    Returns:
        The smallest mask (G,), and the index of the mask it started from.
    """
    cleaned: list[Tensor] = []
    for mask in masks:
        tries = _tries_of_mask(on_done, len(cleaned))
        cleaned.append(clean_up(ablation, mask, batch, target, tries.count))
        on_done(len(cleaned), 0)
    sizes = [size_of(ablation, gates) for gates in cleaned]
    smallest, *others = sorted(range(len(cleaned)), key=sizes.__getitem__)
    best, best_size = cleaned[smallest], sizes[smallest]
    for n_tried, other in enumerate(others):
        tries = _tries_of_union(on_done, len(masks), n_tried)
        union = clean_up(ablation, torch.maximum(best, cleaned[other]), batch, target, tries.count)
        if (size := size_of(ablation, union)) < best_size:
            best, best_size = union, size
        on_done(len(masks), n_tried + 1)
    return best, smallest


def _tries_of_mask(on_done: Callable[[float, float], None], n_cleaned: int) -> Tries:
    return Tries(lambda share: on_done(n_cleaned + share, 0))


def _tries_of_union(on_done: Callable[[float, float], None], n_masks: int, n_tried: int) -> Tries:
    return Tries(lambda share: on_done(n_masks, n_tried + share))
