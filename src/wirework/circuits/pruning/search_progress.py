"""How much of the work of a search for a circuit is done, for the time that is left.

Work is counted in passes of a pair through the model. The numbers of passes are those of a search
with the default settings in a model of the demo's shape, by processor time.
"""

from dataclasses import dataclass
from typing import Self

from wirework.config import PruneConfig

_STEP = 3  # passes of a batch in a step of a trial: forward and backward
_CLEAN_UP = 170  # passes of all judging pairs in the clean-up of a finalist's nodes
_MERGE = 80  # in the clean-up of two merged ones
_EDGES = 180  # in the clean-up of edges


@dataclass(frozen=True)
class Pace:
    """Where in its work a search is, as a share of all of it."""

    config: PruneConfig
    trials: float
    """Share of the trials in all of the work."""
    nodes: float
    """Share of the clean-up of nodes; the rest is that of edges."""

    @classmethod
    def of(cls, config: PruneConfig) -> Self:
        """Return the pace of a search with some settings."""
        trials, orders = 0.0, 1
        if config.finder == "learned":
            trials = _STEP * config.batch_pairs * config.trials * _steps(config, config.steps)
            orders = min(config.trials, config.finalists) + len(config.extra_rankings)
        nodes = _CLEAN_UP * orders + _MERGE * (orders - 1) if config.clean_up else 1
        edges = _EDGES if config.prune_edges else 1
        total = trials + (nodes + edges) * config.eval_pairs
        return cls(config, trials / total, nodes * config.eval_pairs / total)

    def in_trials(self, first: int, count: int, step: int) -> float:
        """Return the share that is done in the trials.

        Args:
            first: how many trials came before the round at hand.
            count: trials of this round.
            step: how far they are trained.
        """
        round_ = _steps(self.config, step) / _steps(self.config, self.config.steps)
        return self.trials * (first + count * round_) / self.config.trials

    def in_clean_ups(self, cleaned: int, merged: int, orders: int) -> float:
        """Return the share that is done in the clean-up of nodes.

        Args:
            cleaned: how many orders of the nodes are cleaned up.
            merged: how many are merged with the best.
            orders: how many there are.
        """
        total = _CLEAN_UP * orders + _MERGE * (orders - 1)
        return self.trials + self.nodes * (_CLEAN_UP * cleaned + _MERGE * merged) / total


def rungs(config: PruneConfig) -> set[int]:
    """Return the steps at which the worse half of the trials stops."""
    return {max(1, round(share * config.steps)) for share in config.stop_at}


def _steps(config: PruneConfig, upto: int) -> float:
    """Return the steps of a trial up to one, where half of the trials go on at each rung."""
    total, start = 0.0, 0
    for halvings, end in enumerate([*sorted(rungs(config)), config.steps]):
        total += max(0, min(upto, end) - start) / 2**halvings
        start = end
    return total
