"""From scores to a circuit: the fewest best-scored nodes that reach the target, then a clean-up.

Gates stand for nodes or, in the clean-up, for the nodes and edges of a circuit.
Shapes: R masks, G gates, K of them open. Source: Gao et al. 2025, App. A.5 (bisection); the
clean-up is ours: the paper removed nodes of no effect by hand and names pruned edges as missing.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Masks, without_weight_gradients
from wirework.circuits.pruning.greedy_removal import GreedyRemoval
from wirework.tasks import TokenizedPairs

_SCAN = 4  # smaller k's tried below the one that bisection found
_PATIENCE = 2  # gates in a row that cannot go alone before a round gives up
_WORTH = 0.03  # share of the gates that a round must close for another one to follow
_REMOVALS = 1024  # pairs, over all gates, on which single removals are tried in a round
_FEW = 4096  # open gates up to which each is tried alone; the time goes with their square


def ranking(score: Tensor) -> Tensor:
    """Return each node's place when sorted by falling score, ties by node order; (N,) int64."""
    order = score.sort(descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def best_nodes(rank: Tensor, counts: list[int]) -> Tensor:
    """Return masks (R, N) float32 of the first `counts[r]` nodes of a ranking."""
    return (rank < torch.tensor(counts, device=rank.device)[:, None]).float()


def smallest_count(reaches: Callable[[int], bool], most: int, guess: int) -> int:
    """Return the smallest k found that reaches the target.

    Steps of a quarter from the guess find where the loss crosses the target, bisection finds the
    k there. The loss need not fall with k, so a few counts spread over the tenth below are tried
    too, not to miss a lucky smaller one.

    Args:
        reaches: whether the k best nodes reach the target.
        most: the largest k, which is taken to reach it.
        guess: where to begin.
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
    lucky = (k for k in range(high - _SCAN * step, high, step) if k > 0 and reaches(k))
    return next(lucky, high)


def discretise(
    masks: Masks, score: Tensor, batch: TokenizedPairs, target: float, guess: int | None = None
) -> Tensor:
    """Return the mask of the fewest best-scored nodes that reach the target.

    All nodes, where none reach it that are tried.

    Args:
        masks: the model and what its gates stand for.
        score: (G,), higher is kept longer.
        batch: the task's pairs to judge by.
        target: task loss in nats.
        guess: about how many nodes it will be. Those of positive score are tried beside it: where
            nodes are of no help by themselves, a few more or fewer may miss what these reach.

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
    """Return how many nodes a score would keep: those above 0, at least one."""
    return max(1, int((score > 0).sum()))


def closest(masks: Masks, scores: Sequence[Tensor], batch: TokenizedPairs) -> tuple[Tensor, int]:
    """Return the mask of lowest loss where no order of the nodes reaches a target.

    Args:
        masks: the model and what its gates stand for.
        scores: (G,) each; the nodes of positive score are tried, so many over and times 2, 4 and 8,
            and all nodes.
        batch: the task's pairs to judge by.

    Returns:
        (G,) float32, and which score it is of.
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


def clean_up(masks: Masks, gates: Tensor, batch: TokenizedPairs, target: float) -> Tensor:
    """Close gates that the target does not need, until no single one can be closed.

    Rounds order the open gates by what closing them is thought to cost, first by gradient and,
    once that no longer pays, by closing each alone, and go through them from the cheap end, many at
    once. At last each is tried on all rows. Of more than 4,096 gates some that could go may stay.

    Args:
        masks: the model and what its gates stand for.
        gates: (G,) of a circuit; one that does not reach the target is returned as it is.
        batch: the task's pairs to judge by.
        target: task loss in nats.

    Returns:
        (G,) float32, a subset of `gates`.
    """
    with without_weight_gradients(masks.transformer):
        removal = GreedyRemoval(masks, gates, batch, target)
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
    """Go through `order` and close what can go, in runs that double and halve.

    Stops when `_PATIENCE` gates in a row could not go alone.
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
    """Try the open gates of `order` one by one, round and round, until none of them can go."""
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
    """Return the first-order rise in loss when each open gate is closed, (K,)."""
    return masks.loss_increase(gates, batch)[kept]


def _cost_by_removal(masks: Masks, gates: Tensor, kept: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the loss when each open gate is closed alone, (K,), on a few pairs."""
    affordable = max(2, min(16, _REMOVALS // len(kept)))
    few = batch.select(torch.arange(min(batch.n_pairs, affordable)))
    without = gates.repeat(len(kept), 1).scatter_(1, kept[:, None], 0)
    return masks.losses(without, few)
