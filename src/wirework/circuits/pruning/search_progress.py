"""Fraction of a search's work that is done, for the progress bar and the time left.

Work is measured in passes of one pair through the model. The constants were measured (processor
time) for a search with default settings on a model of the demo's shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from wirework.config import PruneConfig

_STEP = 3
"""Passes per pair in a training step of a trial: forward and backward."""
_CLEAN_UP = 170
"""Passes of all judging pairs in the greedy removal of a finalist's nodes."""
_MERGE = 80
"""The same for the union of two candidates."""
_EDGES = 180
"""The same for the edges of a circuit."""


@dataclass(frozen=True)
class Pace:
    """Converts steps of a search to the fraction of its work."""

    config: PruneConfig
    trials: float
    """Fraction of the work that the trials take."""
    nodes: float
    """Fraction for greedy removal of nodes; the remaining fraction is for edges."""

    @classmethod
    def of(cls, config: PruneConfig) -> Self:
        """Return the pace of a search with these settings."""
        trials, orders = 0.0, 1
        if config.finder == "learned":
            trials = _STEP * config.batch_pairs * config.trials * _steps(config, config.steps)
            orders = min(config.trials, config.finalists) + len(config.extra_rankings)
        nodes = _CLEAN_UP * orders + _MERGE * (orders - 1) if config.clean_up else 1
        edges = _EDGES if config.prune_edges else 1
        total = trials + (nodes + edges) * config.eval_pairs
        return cls(config, trials / total, nodes * config.eval_pairs / total)

    def in_trials(self, first: int, count: int, step: int) -> float:
        """Return the fraction done while trials are trained.

        Args:
            first: number of trials before the current round.
            count: number of trials in this round.
            step: training steps done in this round.
        """
        round_ = _steps(self.config, step) / _steps(self.config, self.config.steps)
        return self.trials * (first + count * round_) / self.config.trials

    def in_clean_ups(self, cleaned: float, merged: float, orders: int) -> float:
        """Return the fraction done during greedy removal of nodes.

        Args:
            cleaned: number of candidates pruned.
            merged: number of unions tried.
            orders: number of candidates.
        """
        total = _CLEAN_UP * orders + _MERGE * (orders - 1)
        return self.trials + self.nodes * (_CLEAN_UP * cleaned + _MERGE * merged) / total

    def in_edges(self, share: float) -> float:
        """Return the fraction done during greedy removal of edges, of which `share` is done."""
        before = self.trials + self.nodes
        return before + (1 - before) * share


class Tries:
    """Estimates how far a greedy removal is from the number of removals tried.

    It is not known in advance how many it takes. The estimate rises to 82% at the usual number and
    goes towards 1 beyond it.

    Args:
        on_progress: gets the estimated fraction at each try.
    """

    def __init__(self, on_progress: Callable[[float], None]) -> None:
        self._on_progress = on_progress
        self._tried = 0

    def count(self) -> None:
        """Count one more try."""
        self._tried += 1
        self._on_progress(-math.expm1(-1.7 * self._tried / _CLEAN_UP))


def rungs(config: PruneConfig) -> set[int]:
    """Return the steps at which the worse half of the trials is stopped."""
    return {max(1, round(share * config.steps)) for share in config.stop_at}


def _steps(config: PruneConfig, upto: int) -> float:
    """Return the mean steps per trial up to `upto`; half of the trials continue at each rung."""
    total, start = 0.0, 0
    for halvings, end in enumerate([*sorted(rungs(config)), config.steps]):
        total += max(0, min(upto, end) - start) / 2**halvings
        start = end
    return total
