"""Trials of a search: masks trained with different settings, of which the smallest are selected.

Trials are compared by the size of their circuits after bisection on a few judging pairs. Rankings
by a score are candidates like the trials.
Shapes: G gates. Source: Gao et al. 2025, App. A.5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.pruning.discretise import discretise, ranking
from wirework.circuits.pruning.feasibility import model_loss
from wirework.circuits.pruning.hyperparameter_search import Round, rounds
from wirework.circuits.pruning.learned_masks import learn_masks
from wirework.circuits.pruning.merging import CircuitSize, size_of
from wirework.circuits.pruning.search_folder import (
    Candidate,
    kept_best,
    merged,
    write_candidates,
)
from wirework.circuits.pruning.search_progress import Pace, rungs
from wirework.circuits.scoring.scores import score_nodes
from wirework.config import PruneConfig
from wirework.tasks import TokenizedPairs
from wirework.tasks.task_loss import chance_loss, reduced

_SCORE_PAIRS = 128
"""Pairs on which nodes are scored."""
_QUICK_PAIRS = 32
"""Judging pairs on which trials are compared; finalists use all."""
_SLACK = 0.01
"""Nats, as a mean over prompts, above the model's own loss that a trial may always have."""


@dataclass(frozen=True)
class TrialSelection:
    """Trains the trials of one task and selects the smallest, on a few judging pairs."""

    ablation: Ablation
    train: TokenizedPairs
    """Training pairs."""
    quick: TokenizedPairs
    """The few judging pairs on which trials are compared."""
    target: float
    """Task loss in nats on these, from `trial_target`."""
    config: PruneConfig
    warm: Tensor | None
    """(G,) warm start, as `learn_masks` takes it; None to start all gates alike."""

    @classmethod
    def of(
        cls, ablation: Ablation, train: TokenizedPairs, judge: TokenizedPairs, config: PruneConfig
    ) -> Self:
        """Prepare the trials of one task; with a warm start the nodes are scored first.

        Args:
            ablation: the model with its gates.
            train: the training pairs.
            judge: all judging pairs.
            config: settings of the search.
        """
        quick = judge.select(torch.arange(min(judge.n_pairs, _QUICK_PAIRS)))
        target = trial_target(ablation, quick, config.target_loss)
        warm = None
        if config.warm_start is not None:
            rank = ranking(score_gates(ablation, train, config.warm_start, config.seed))
            warm = 1 - 2 * rank / max(1, len(rank) - 1)
        return cls(ablation, train, quick, target, config, warm)

    def by_score(self, method: str) -> Candidate:
        """Return the ranking by a score as a candidate."""
        score = score_gates(self.ablation, self.train, method, self.config.seed)
        return Candidate(*self._size(score), score, method)

    def best(self, folder: Path | None, on_progress: Callable[[float], None]) -> list[Candidate]:
        """Return the `finalists` smallest trials; `on_progress` gets the fraction of work done."""
        count = self.config.finalists
        best, pace = [] if folder is None else kept_best(folder, count), Pace.of(self.config)
        for current in rounds(self.config, folder):
            finished = self._run(current, on_progress)
            best = merged(best, finished.values())[:count]
            if folder is not None:
                write_candidates(folder, best)  # before the study is told: its masks must be saved
            n_trials = len(current.settings)
            on_progress(pace.in_trials(current.first + n_trials, 0, 0))
            ended = [finished.get(index) for index in range(n_trials)]
            current.tell([None if trial is None else float(trial.edges) for trial in ended])
        return best[:count]

    def _run(self, current: Round, on_progress: Callable[[float], None]) -> dict[int, Candidate]:
        """Train one round of trials; return those not stopped early, by index in the round."""
        config, count = self.config, len(current.settings)
        rung_steps = rungs(config)
        unstopped, pace = list(range(count)), Pace.of(config)
        on_progress(pace.in_trials(current.first, count, 0))

        def after_step(step: int, running: list[int], tau: Tensor) -> list[bool]:
            on_progress(pace.in_trials(current.first, count, step))
            if step not in rung_steps:
                return [True] * len(running)
            sizes = [self._size(of_trial).edges for of_trial in tau]
            continues = current.in_better_half(step, running, sizes)
            unstopped[:] = [index for index, goes in zip(running, continues, strict=True) if goes]
            return continues

        taus = learn_masks(
            self.ablation,
            self.train,
            current.settings,
            steps=config.steps,
            batch_pairs=config.batch_pairs,
            seeds=[1000 * config.seed + current.first + index for index in range(count)],
            warm=self.warm,
            after_step=after_step,
        )
        return {index: Candidate(*self._size(taus[index]), taus[index]) for index in unstopped}

    def _size(self, tau: Tensor) -> CircuitSize:
        """Return the size of the circuit that a trial's masks give after bisection."""
        return size_of(self.ablation, discretise(self.ablation, tau, self.quick, self.target))


def score_gates(ablation: Ablation, batch: TokenizedPairs, method: str, seed: int) -> Tensor:
    """Return the score of each gate: the highest score of its nodes.

    Args:
        ablation: the model with its gates.
        batch: tokenised pairs, of which at most 128 are used.
        method: name of the scoring method.
        seed: seed of the method `random`.

    Returns:
        (G,), higher is more important.
    """
    first_pairs = batch.select(torch.arange(min(batch.n_pairs, _SCORE_PAIRS)))
    score = score_nodes(ablation.untied().with_mean_ablation(), first_pairs, method, seed)
    return ablation.highest(score)


def trial_target(ablation: Ablation, batch: TokenizedPairs, target: float) -> float:
    """Return the target loss in nats at which trials are compared on a few pairs.

    It is at least slightly above the model's own loss on these pairs: otherwise every trial would
    keep every node if the model misses the target on them. A model no better than chance does not
    raise the target: an empty circuit would win every comparison.

    Args:
        ablation: the model with its gates.
        batch: the pairs.
        target: task loss of the search, in nats.
    """
    own_loss = model_loss(ablation, batch)
    reduction = ablation.loss_reduction
    if own_loss >= chance_loss(reduction):
        return target
    return max(target, own_loss + reduced(_SLACK, reduction))
