"""One small circuit from several candidates: greedy removal of each, then of their unions.

Greedy removal ends in a local minimum, and the size before says little about the size after: 18
trials of one task had 55 to 408 edges before and 19 to 44 after, in another order. The union of two
pruned circuits has few nodes, so pruning it is cheap, and the result is often smaller than either.
This step is ours, not the paper's.
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
    """Prune each mask greedily, then try to improve the smallest by its union with each other.

    Args:
        ablation: the model with its gates.
        masks: one or more, (G,) each, that reach the target.
        batch: the judging pairs.
        target: task loss in nats.
        on_done: gets how many masks are pruned and how many unions are tried, with the estimated
            fraction of the one at work.

    Returns:
        The smallest mask (G,), and the index of the mask it started from.
    """
    cleaned: list[Tensor] = []
    for mask in masks:
        tries = _tries_of_mask(on_done, len(cleaned))
        cleaned.append(clean_up(ablation, mask, batch, target, tries.count))
        on_done(len(cleaned), 0)
    sizes = [size_of(ablation, gates) for gates in cleaned]
    first, *others = sorted(range(len(cleaned)), key=sizes.__getitem__)
    best, least = cleaned[first], sizes[first]
    for place, other in enumerate(others, 1):
        tries = _tries_of_union(on_done, len(masks), place - 1)
        union = clean_up(ablation, torch.maximum(best, cleaned[other]), batch, target, tries.count)
        if (size := size_of(ablation, union)) < least:
            best, least = union, size
        on_done(len(masks), place)
    return best, first


def _tries_of_mask(on_done: Callable[[float, float], None], before: int) -> Tries:
    return Tries(lambda share: on_done(before + share, 0))


def _tries_of_union(on_done: Callable[[float, float], None], masks: int, before: int) -> Tries:
    return Tries(lambda share: on_done(masks, before + share))
