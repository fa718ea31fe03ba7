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

from wirework.circuits.masking.masks import Masks, without_weight_gradients
from wirework.circuits.pruning.greedy_removal import GreedyRemoval
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.renamed_names import old_arguments
from wirework.tasks import TokenizedPairs

_SCAN = 4
"""Smaller counts that are tried below the result of the bisection."""
_PATIENCE = 2
"""Consecutive single gates that cannot be removed before a round ends."""
_LEAST_SHARE = 0.03
"""Share of the gates that a round must remove for another round to follow."""
_REMOVALS = 1024
"""Pairs, summed over gates, on which single removals are measured."""
_MOST_TRIED_ALONE = 4096
"""Kept gates up to which each is tried alone, which takes quadratic time."""
_MOST_TRIED_AGAIN = 256
"""Kept gates up to which all are tried again after any is removed. With more, as in dense models,
a round that removes less than `_LEAST_SHARE` is the last one: further ones would take hours."""


def ranking(score: Tensor) -> Tensor:
    """Return each node's rank by descending score, ties in node order; (N,) int64."""
    order = score.sort(descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def best_nodes(rank: Tensor, counts: list[int]) -> Tensor:
    """Return masks (R, N) float32; mask r keeps the first `counts[r]` nodes of a ranking.

    Args:
        rank: (N,) int64, the result of `ranking`.
        counts: R numbers of nodes.
    """
    return (rank < torch.tensor(counts, device=rank.device)[:, None]).float()


def smallest_count(reaches: Callable[[int], bool], most: int, guess: int) -> int:
    """Search for the smallest k for which the k best nodes reach the target.

    Steps of a quarter from the guess bracket a crossing of the target, then bisection finds it. The
    loss is not monotonic in k, so a few counts up to a tenth below the result are tried too.

    Args:
        reaches: returns whether the k best nodes reach the target.
        most: the largest k; it is assumed to reach the target.
        guess: the first k to try.

    Returns:
        The smallest k that was tried and reaches the target.
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
@unchanged_weights()
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
    rank, n_positive = ranking(score), _n_positive(score)

    def reaches(count: int) -> bool:
        return masks.within(best_nodes(rank, [count])[0], batch, target)

    if guess is None or (not reaches(guess) and reaches(n_positive)):
        guess = n_positive
    return best_nodes(rank, [smallest_count(reaches, len(rank), guess)])[0]


def _n_positive(score: Tensor) -> int:
    """Return the number of positive scores, at least one."""
    return max(1, int((score > 0).sum()))


def closest(masks: Masks, scores: Sequence[Tensor], batch: TokenizedPairs) -> tuple[Tensor, int]:
    """Return the mask of lowest loss, for searches in which no ranking reaches the target.

    For each ranking the number of positive scores is tried, 1/8 to 8 times as many in powers of 2,
    and all gates.

    Args:
        masks: the model with its gates.
        scores: (G,) each.
        batch: the judging pairs.

    Returns:
        The mask (G,) float32, and the index of the score it comes from.
    """
    best_mask, best_score, least_loss = torch.ones_like(scores[0]), 0, math.inf
    for number, score in enumerate(scores):
        n_positive, n_gates = _n_positive(score), len(score)
        around = {min(max(1, round(n_positive * 2.0**power)), n_gates) for power in range(-3, 4)}
        tried = best_nodes(ranking(score), sorted(around | {n_gates}))
        losses = torch.stack([mode.losses(tried, batch) for mode in masks.ablation_modes()]).amax(0)
        if float(losses.min()) < least_loss:
            best_mask, best_score = tried[losses.argmin()], number
            least_loss = float(losses.min())
    return best_mask, best_score


@old_arguments(rows="batch")
@unchanged_weights()
def clean_up(
    masks: Masks,
    gates: Tensor,
    batch: TokenizedPairs,
    target: float,
    on_try: Callable[[], None] | None = None,
) -> Tensor:
    """Remove gates that the target does not need.

    Each round ranks the kept gates by estimated cost of removal, and removes runs of the cheapest:

    1. The cost is the gradient, as long as this removes enough gates.
    2. Then it is the loss without each gate alone, on a few pairs.
    3. Finally every gate is tried alone on all pairs.

    With more than 4,096 kept gates steps 2 and 3 are skipped; with more than 256, step 3 ends after
    a round that removes less than 3% of them. So some removable gates may stay in large circuits.

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
                if cost is _cost_by_removal and len(kept) > _MOST_TRIED_ALONE:
                    return removal.gates
                order = kept[cost(masks, removal.gates, kept, batch).sort(stable=True).indices]
                _remove_runs(removal, order)
                if len(kept) - int(removal.gates.sum()) < max(1.0, _LEAST_SHARE * len(kept)):
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
    """Try the kept gates of `order` one by one, repeatedly, until none can be removed.

    If they are many, until a round removes few.
    """
    remaining = deque(order[removal.gates[order] > 0])
    failures = tries = 0
    round_start = len(remaining)
    while failures < len(remaining):
        gate, tries = remaining.popleft(), tries + 1
        if removal.close(gate):
            failures = 0
        else:
            remaining.append(gate)
            failures += 1
        if tries == round_start:
            removed = round_start - len(remaining)
            if len(remaining) > _MOST_TRIED_AGAIN and removed < _LEAST_SHARE * round_start:
                return
            round_start, tries = len(remaining), 0


def _cost_by_gradient(masks: Masks, gates: Tensor, kept: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the first-order increase in loss when each kept gate is removed, (K,)."""
    return masks.loss_increase(gates, batch)[kept]


def _cost_by_removal(masks: Masks, gates: Tensor, kept: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the loss when each kept gate is removed alone, (K,), on a few pairs."""
    n_pairs = max(2, min(16, _REMOVALS // len(kept)))
    first_pairs = batch.select(torch.arange(min(batch.n_pairs, n_pairs)))
    without_each = gates.repeat(len(kept), 1).scatter_(1, kept[:, None], 0)
    return masks.losses(without_each, first_pairs)
