"""The finalists of a search: from the best trials and score rankings to one small node mask.

Each candidate is discretised by bisection and pruned greedily on all judging pairs, unless that
would take long and rarely win. Then the circuits are merged.
Shapes: G gates. Source: Gao et al. 2025, App. A.5 (bisection); the rest is ours.
"""

from collections.abc import Callable

from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.pruning.discretise import closest, discretise
from wirework.circuits.pruning.merging import cleaned_and_merged, size_of
from wirework.circuits.pruning.search_folder import Candidate
from wirework.circuits.pruning.search_progress import Pace
from wirework.config import PruneConfig
from wirework.tasks import TokenizedPairs

_ALWAYS_CLEANED = 256
"""Candidates of up to this many nodes after bisection are always cleaned up."""
_MOST_TIMES = 2
"""Larger candidates are dropped if they have more than this times the nodes of the smallest."""


def bisected_masks(
    ablation: Ablation, best: list[Candidate], judge: TokenizedPairs, target: float
) -> list[Tensor]:
    """Return the mask (G,) of each candidate after bisection.

    Args:
        ablation: the model with its gates.
        best: the candidates.
        judge: the judging pairs.
        target: task loss in nats.
    """
    return [
        discretise(ablation, candidate.tau, judge, target, candidate.nodes) for candidate in best
    ]


def smallest_mask(
    ablation: Ablation,
    best: list[Candidate],
    masks: list[Tensor],
    judge: TokenizedPairs,
    config: PruneConfig,
    on_progress: Callable[[float], None],
) -> tuple[Tensor, Candidate]:
    """Return the smallest node mask (G,) of some candidates, and the candidate it is from.

    If no mask reaches the target, the mask of lowest loss is returned.

    Args:
        ablation: the model with its gates.
        best: the candidates.
        masks: (G,) each, their masks after bisection.
        judge: the judging pairs.
        config: settings of the search.
        on_progress: gets the fraction of work done.
    """
    target = config.target_loss
    if not any(ablation.within(mask, judge, target) for mask in masks):
        scores = [candidate.tau for candidate in best]
        nodes, number = closest(ablation, scores, judge)
        return nodes, best[number]
    affordable = affordable_candidates(best, masks)
    masks = [mask for _, mask in affordable]

    pace = Pace.of(config)

    def on_done(cleaned: float, merged: float) -> None:
        on_progress(pace.in_clean_ups(cleaned, merged, len(masks)))

    if config.clean_up:
        nodes, number = cleaned_and_merged(ablation, masks, judge, target, on_done)
    else:
        sizes = [size_of(ablation, mask) for mask in masks]
        number = sizes.index(min(sizes))
        nodes = masks[number]
    return nodes, affordable[number][0]


def affordable_candidates(
    best: list[Candidate], masks: list[Tensor]
) -> list[tuple[Candidate, Tensor]]:
    """Drop candidates whose greedy removal would take long and rarely wins.

    Its time grows with the square of the number of nodes after bisection, and a candidate with many
    times the nodes of another one stays the larger. The smallest candidate is always returned.

    Args:
        best: the candidates.
        masks: (G,) each, their node masks after bisection.
    """
    sizes = [int(mask.sum()) for mask in masks]
    most_nodes = max(_ALWAYS_CLEANED, _MOST_TIMES * min(sizes))
    candidates = zip(best, masks, sizes, strict=True)
    return [(candidate, mask) for candidate, mask, size in candidates if size <= most_nodes]
