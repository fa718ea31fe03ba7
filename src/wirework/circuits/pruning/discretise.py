"""From scores to a circuit: bisection for the fewest nodes, then greedy removal (clean-up).

`discretise` ranks the gates by score and bisects for the smallest prefix that reaches the target.
`clean_up` removes gates (nodes, or nodes and edges) that the target does not need.
Shapes: R masks, G gates, K of them kept. Source: Gao et al. 2025, App. A.5 (bisection). Greedy
removal is ours: the paper removed nodes without effect by hand and did not prune edges.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Masks, without_weight_gradients
from wirework.circuits.pruning.greedy_removal import GreedyRemoval
from wirework.renamed_names import old_arguments
from wirework.tasks import TokenizedPairs

_SCAN = 4  # smaller counts tried below the result of the bisection
_PATIENCE = 2  # consecutive single gates that cannot be removed before a round ends
_WORTH = 0.03  # fraction of the gates that a round must remove for another round to follow
_REMOVALS = 1024  # pairs, summed over gates, on which single removals are measured
_FEW = 4096  # kept gates up to which each is tried alone (quadratic time)


def ranking(score: Tensor) -> Tensor:
    """Return each node's rank by descending score, ties in node order; (N,) int64."""
    order = score.sort(descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def best_nodes(rank: Tensor, counts: list[int]) -> Tensor:
    """Return masks (R, N) float32 of the first `counts[r]` nodes of a ranking."""
    return (rank < torch.tensor(counts, device=rank.device)[:, None]).float()


def smallest_count(reaches: Callable[[int], bool], most: int, guess: int) -> int:
    """Return the smallest k found for which the k best nodes reach the target.

    Steps of a quarter from the guess bracket the crossing, then bisection finds k. The loss is not
    monotonic in k, so a few counts within the tenth below are tried too.

    Args:
        reaches: returns whether the k best nodes reach the target.
        most: the largest k; it is assumed to reach the target.
        guess: the first k to try.
    """
    low, high = 0, most
    if reaches(guess):
        high = guess
        while (lower := high * 3 // 4) > 0 and reaches(lower):
            high = lower
        low = lower
    else:
        low = guess
        while (higher := min(low * 5 // 4 + 1, most)) < most and not reaches(higher):
            low = higher
        high = higher
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    step = max(1, high // (10 * _SCAN))
    smaller = (k for k in range(high - _SCAN * step, high, step) if k > 0 and reaches(k))
    return next(smaller, high)


@old_arguments(rows="batch")
def discretise(
    masks: Masks, score: Tensor, batch: TokenizedPairs, target: float, guess: int | None = None
) -> Tensor:
    """Return the mask of the fewest best-scored gates that reach the target.

    If no tried count reaches it, all gates are kept.

    Args:
        masks: the model with its gates.
        score: (G,), higher is more important.
        batch: the judging pairs.
        target: task loss in nats.
        guess: expected number of nodes. The number of positive scores is tried as well: when nodes
            help only together, a slightly different count may miss a target that this one reaches.

    Returns:
        (G,) float32, 1 kept.
    """
    rank, own = ranking(score), _own_count(score)

    def reaches(count: int) -> bool:
        return masks.within(best_nodes(rank, [count])[0], batch, target)

    if guess is None or (not reaches(guess) and reaches(own)):
        guess = own
    return best_nodes(rank, [smallest_count(reaches, len(rank), guess)])[0]


def _own_count(score: Tensor) -> int:
    """Return the number of positive scores, at least one."""
    return max(1, int((score > 0).sum()))


def closest(masks: Masks, scores: Sequence[Tensor], batch: TokenizedPairs) -> tuple[Tensor, int]:
    """Return the mask of lowest loss, for searches in which no ranking reaches the target.

    Args:
        masks: the model with its gates.
        scores: (G,) each. Tried counts: the number of positive scores times 1/8 to 8 in powers of
            2, and all gates.
        batch: the judging pairs.

    Returns:
        The mask (G,) float32, and the index of the score it comes from.
    """
    best, which, least = torch.ones_like(scores[0]), 0, math.inf
    for number, score in enumerate(scores):
        own, most = _own_count(score), len(score)
        counts = sorted(
            {min(max(1, round(own * 2.0**step)), most) for step in range(-3, 4)} | {most}
        )
        tried = best_nodes(ranking(score), counts)
        losses = torch.stack([mode.losses(tried, batch) for mode in masks.ablation_modes()]).amax(0)
        if float(losses.min()) < least:
            best, which, least = tried[losses.argmin()], number, float(losses.min())
    return best, which


@old_arguments(rows="batch")
def clean_up(
    masks: Masks,
    gates: Tensor,
    batch: TokenizedPairs,
    target: float,
    on_try: Callable[[], None] | None = None,
) -> Tensor:
    """Remove gates that the target does not need, until no single gate can be removed.

    Each round ranks the kept gates by estimated cost of removal and removes runs of the cheapest.
    The cost is first the gradient and then, once that removes few, the loss without each gate
    alone on a few pairs. Finally every gate is tried alone on all pairs. With more than 4,096 gates
    the later steps are skipped, so some removable gates may stay.

    Args:
        masks: the model with its gates.
        gates: (G,) of a circuit; returned unchanged if it does not reach the target.
        batch: the judging pairs.
        target: task loss in nats.
        on_try: called before each removal that is tried, for a progress bar.

    Returns:
        (G,) float32, a subset of `gates`.
    """
    with without_weight_gradients(masks.transformer):
        removal = GreedyRemoval(masks, gates, batch, target, on_try)
        if not removal.reached:
            return gates
        for cost in (_cost_by_gradient, _cost_by_removal):
            while len(kept := removal.gates.nonzero().flatten()):
                if cost is _cost_by_removal and len(kept) > _FEW:
                    return removal.gates
                order = kept[cost(masks, removal.gates, kept, batch).sort(stable=True).indices]
                _remove_runs(removal, order)
                if len(kept) - int(removal.gates.sum()) < max(1.0, _WORTH * len(kept)):
                    break
        if len(kept):
            _remove_each(removal, order)
        return removal.gates


def _remove_runs(removal: GreedyRemoval, order: Tensor) -> None:
    """Remove runs of gates in this order; the run length doubles on success and halves on failure.

    Stops when `_PATIENCE` consecutive single gates could not be removed.
    """
    start, run, failures = 0, max(1, len(order) // 4), 0
    while start < len(order) and failures < _PATIENCE:
        if removal.close(order[start : start + run]):
            start, run, failures = start + run, 2 * run, 0
        elif run > 1:
            run //= 2
        else:
            start, failures = start + 1, failures + 1


def _remove_each(removal: GreedyRemoval, order: Tensor) -> None:
    """Try the kept gates of `order` one by one, repeatedly, until none can be removed."""
    left = deque(order[removal.gates[order] > 0])
    failures = 0
    while failures < len(left):
        place = left.popleft()
        if removal.close(place):
            failures = 0
        else:
            left.append(place)
            failures += 1


def _cost_by_gradient(masks: Masks, gates: Tensor, kept: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the first-order increase in loss when each kept gate is removed, (K,)."""
    return masks.loss_increase(gates, batch)[kept]


def _cost_by_removal(masks: Masks, gates: Tensor, kept: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the loss when each kept gate is removed alone, (K,), on a few pairs."""
    affordable = max(2, min(16, _REMOVALS // len(kept)))
    few = batch.select(torch.arange(min(batch.n_pairs, affordable)))
    without = gates.repeat(len(kept), 1).scatter_(1, kept[:, None], 0)
    return masks.losses(without, few)
