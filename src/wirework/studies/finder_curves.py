"""Faithfulness curves of the rankings that finders make, on held-out pairs.

A score ranks the nodes without a target, so its curve is the same at every target loss; so is that
of the score with clean-up, which removes nodes and ranks none. Learned masks are trained for a
target: their ranking is that of the smallest trial.
Shapes: N nodes of all sites.
Source: Mueller et al. 2025, MIB: A Mechanistic Interpretability Benchmark (CPR, CMD).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.feasibility import without_feasibility_checks
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.pruning.search_folder import trained_candidates
from wirework.circuits.pruning.trials import score_gates
from wirework.circuits.scoring.faithfulness_curve import faithfulness_curve
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import Report
from wirework.tasks import Task

if TYPE_CHECKING:
    from wirework.model import Model

LEARNED = "learned"


@dataclass(frozen=True, repr=False)
class FinderCurve(Report):
    """Faithfulness curve of a finder's ranking on one task."""

    finder: str
    """`learned` or a score."""
    target_loss: float | None
    """Nats; None for a score, whose ranking does not depend on it."""
    task: str
    n_nodes: tuple[int, ...]
    """Kept nodes at each point."""
    faithfulness: tuple[float, ...]
    """Share of the model's logit difference that they restore."""
    cpr: float
    """Area under the curve; higher is better."""
    cmd: float
    """Area between the curve and 1; lower is better."""


@dataclass(frozen=True)
class CurveMaker:
    """Measures rankings of one model's nodes with the ablation values of one text."""

    model: "Model"
    baseline: AblationBaseline

    def curves(
        self, task: Task, folders: Mapping[float, Path], settings: Sequence[PruneConfig]
    ) -> list[FinderCurve]:
        """Return the curves of a task, of each finder and, for learned masks, each target.

        Removed nodes are at the means of the second sample, which no search uses.

        Args:
            task: a task that the model does; curves are measured on its held-out pairs.
            folders: target loss to the folder of the circuits of learned masks, whose searches are
                beside them; a missing search has no curve.
            settings: settings of the searches, one for each finder and target.

        Returns:
            No curve where the model answers no better with all nodes than without any.
        """
        of_rankings: dict[tuple[str, float | None], FinderCurve | None] = {}
        for config in settings:
            target = config.target_loss if config.finder == LEARNED else None
            if (config.finder, target) not in of_rankings:
                unchecked = without_feasibility_checks(config)
                run = PruningRun.of(self.model, task, unchecked, self.baseline)
                folder = folders.get(config.target_loss)
                score = (
                    score_of(run, config) if target is None else self._learned(run, config, folder)
                )
                curve = None if score is None else self._curve(run, config, score)
                of_rankings[config.finder, target] = curve
        return [curve for curve in of_rankings.values() if curve is not None]

    @unchanged_weights()
    def _curve(self, run: PruningRun, config: PruneConfig, score: Tensor) -> FinderCurve | None:
        held_out = tokenize_task(run.parts.held_out, self.model)
        ablation: Ablation = self.baseline.second_sample(self.model, config) or run.ablation
        try:
            curve = faithfulness_curve(ablation.with_mean_ablation(), score, held_out)
        except InputError:  # no node at all answers as the model does
            return None
        return FinderCurve(
            finder=config.finder,
            target_loss=config.target_loss if config.finder == LEARNED else None,
            task=run.task.name,
            n_nodes=curve.n_nodes,
            faithfulness=curve.faithfulness,
            cpr=curve.cpr,
            cmd=curve.cmd,
        )

    def _learned(self, run: PruningRun, config: PruneConfig, folder: Path | None) -> Tensor | None:
        """Return the masks (N,) of the smallest trial of a finished search; None without it."""
        if folder is None:
            return None
        search, origin = folder / f"{run.task.name}.search", self.baseline.origin
        best = trained_candidates(search, self.model, run.task, run.parts, config, origin)
        return run.ablation.nodes(best[0].tau) if best else None


def score_of(run: PruningRun, config: PruneConfig) -> Tensor:
    """Return the score (N,) by which a search with this finder ranks the nodes."""
    train = tokenize_task(run.parts.train, run.model)
    return run.ablation.nodes(score_gates(run.ablation, train, config.finder, config.seed))
