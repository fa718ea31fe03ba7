"""Find the smallest circuit of a task: learned pruning with a hyperparameter search.

1. The target is checked: below chance, and reached by the model itself (`feasibility.py`).
2. Trials with different settings (`trials.py`) train Heaviside masks on the training pairs
   (`learned_masks.py`).
3. The best trials are discretised by bisection and pruned greedily (`discretise.py`) on the judging
   pairs, and merged (`finalists.py`, `merging.py`).
4. Edges are pruned, then embedding edges if configured, and the circuit is checked with ablation
   values not used in the search (`second_sample.py`).

Source: Gao et al. 2025, sec. 2.2, App. A.5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuit_format import PaperSize
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.embedding_edges import EmbeddingEdges, read_channels
from wirework.circuits.node_assembly import FinderResult, assemble
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.adversarial_search import (
    AdversarialSearch,
    Found,
    with_first_adversary,
)
from wirework.circuits.pruning.feasibility import check_chance, check_target, model_loss
from wirework.circuits.pruning.finalists import bisected_masks, smallest_mask
from wirework.circuits.pruning.paper_size import paper_mask, paper_size
from wirework.circuits.pruning.search_folder import Candidate, lock_folder, open_search
from wirework.circuits.pruning.search_progress import Pace, Tries
from wirework.circuits.pruning.second_sample import ROUNDING, EdgePruning, with_second_sample
from wirework.circuits.pruning.trials import TrialSelection
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.tasks import Task, TokenizedPairs, load_task, tokenizer_of
from wirework.tasks.task_split import Parts, parts_of
from wirework.tasks.token_groups import token_groups

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@unchanged_weights()
def prune(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: PruneConfig | None = None,
    *,
    target_loss: float | None = None,
    data: "Tokens | None" = None,
    search: str | Path | None = None,
    progress: bool = True,
    **overrides: Any,
) -> NodeCircuit:
    """Find the smallest circuit of a task whose task loss reaches the target.

    Deterministic: the same model, task, text and config give the same circuit on the same machine.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: a task, or what `ww.task` takes. Its pairs are split into training, judging and
            held-out pairs.
        config: settings; None for the defaults.
        target_loss: task loss in nats; overrides `config.target_loss`.
        data: tokens of the training corpus, to measure the means on; None to use the means saved
            beside the model or, without these, the corpus of its run.
        search: folder for the state of the search, so that the same call resumes it after an
            interruption; None keeps the state in memory.
        progress: show a progress bar on standard error.
        **overrides: settings of `PruneConfig` by name (`steps=100`); they win over `config`.

    Raises:
        InputError: the task does not fit the model or has fewer than four pairs, there are no
            means (with `embedding_edges`: no text), the model itself does not reach the target or
            the target is above chance (`config.allow_unreached` disables these two checks), or
            `search` cannot be written.

    Source: Gao et al. 2025, sec. 2.2, App. A.5.
    """
    from wirework.model import load

    model, task = load(model), load_task(task)
    changes = overrides if target_loss is None else {**overrides, "target_loss": target_loss}
    config = PruneConfig.overridden(config, changes)
    check_chance(config)
    tokenizer_of(model)
    with Progress(f"prune {task.name}", shown=progress) as bar:
        pruning_run = PruningRun.of(
            model, task, config, AblationBaseline.of(model, data, config), search
        )
        return pruning_run.run(bar.update)


def ignore_progress(_: float) -> None:
    """Discard a progress report."""


@dataclass(frozen=True)
class PruningRun:
    """One search for a circuit, with all inputs validated and measured."""

    model: "Model"
    task: Task
    config: PruneConfig
    parts: Parts
    baseline: AblationBaseline
    ablation: Ablation
    trial_selection: TrialSelection
    search: Path | None
    """Folder of the search; None to keep it in memory."""

    @classmethod
    def of(
        cls,
        model: "Model",
        task: Task,
        config: PruneConfig,
        baseline: AblationBaseline,
        search: str | Path | None = None,
        *,
        hold_out_templates: bool = True,
    ) -> "PruningRun":
        """Prepare a search; arguments as in `prune` and `parts_of`. Nothing is written.

        Raises:
            InputError: the search cannot succeed: the task does not fit the model, has too few
                pairs, or the model itself does not reach the target.
        """
        fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
        parts = parts_of(
            fitted, config.eval_pairs, config.seed, hold_out_templates=hold_out_templates
        )
        train, judge = tokenize_task(parts.train, model), tokenize_task(parts.judge, model)
        ablation = baseline.ablation(model, config)
        if not config.allow_unreached:
            check_target(ablation, judge, config.target_loss)
        if ablation.value_range is not None:
            ablation = with_first_adversary(ablation, judge)
        trial_selection = TrialSelection.of(ablation, train, judge, config)
        kept = None if search is None else Path(search)
        return cls(model, task, config, parts, baseline, ablation, trial_selection, kept)

    def excluding(self, nodes: Mapping[str, Sequence[int]]) -> "PruningRun":
        """Return the same search without some nodes: they are ablated in all of its masks.

        Args:
            nodes: site to channels, beside what is excluded already.

        Raises:
            InputError: the model has no such node.
        """
        if not nodes:
            return self
        ablation = self.ablation.without(self.ablation.space.gates(nodes) > 0)
        train = tokenize_task(self.parts.train, self.model)
        judge = tokenize_task(self.parts.judge, self.model)
        trial_selection = TrialSelection.of(ablation, train, judge, self.config)
        return replace(self, ablation=ablation, trial_selection=trial_selection)

    @property
    def excluded(self) -> dict[str, tuple[int, ...]]:
        """Site to channels of the excluded nodes, in execution order."""
        if (mask := self.ablation.excluded) is None:
            return {}
        channels = self.ablation.space.channels(mask.nonzero().flatten().cpu())
        return {site: tuple(some.tolist()) for site, some in channels.items() if len(some)}

    def model_loss(self) -> float:
        """Return the task loss of the model with the excluded nodes ablated, in nats.

        As the losses of a circuit, it is measured on the judging pairs and with ablation values of
        the second sample, if there is one. Without excluded nodes it is the model's own loss.
        """
        ablation = self.baseline.second_sample(self.model, self.config) or self.ablation
        ablation = replace(ablation, tie=self.ablation.tie, excluded=self.ablation.excluded)
        return model_loss(ablation, tokenize_task(self.parts.judge, self.model))

    def ranked(self, on_progress: Callable[[float], None] = ignore_progress) -> list[Candidate]:
        """Return the candidates before greedy removal: the best trials and the score rankings.

        Raises:
            InputError: the folder of the search cannot be written, is damaged or in use.
        """
        config = self.config
        if config.finder != "learned":
            return [self.trial_selection.by_score(config.finder)]
        folder = self._folder()
        with lock_folder(folder):
            best = self.trial_selection.best(folder, on_progress)
        return best + [self.trial_selection.by_score(method) for method in config.extra_rankings]

    def _folder(self) -> Path | None:
        if self.search is None:
            return None
        return open_search(
            self.search,
            self.model,
            self.task,
            self.parts,
            self.config,
            self.baseline.origin,
            self.excluded,
        )

    def run(self, on_progress: Callable[[float], None] = ignore_progress) -> NodeCircuit:
        """Run the search and return its circuit; `on_progress` gets the fraction of work done."""
        return self.circuit_from(self.ranked(on_progress), on_progress)

    def circuit_from(
        self, best: list[Candidate], on_progress: Callable[[float], None] = ignore_progress
    ) -> NodeCircuit:
        """Return the smallest circuit obtained from these candidates."""
        config, judge = self.config, tokenize_task(self.parts.judge, self.model)
        bisected = bisected_masks(self.ablation, best, judge, config.target_loss)
        plain_size = self._paper_size(best, bisected, judge)
        found, attacked = self._search_of(best, bisected, judge, on_progress), None
        if self.ablation.value_range is None:
            circuit = found(self.ablation)
        else:
            circuit, attacked = AdversarialSearch(
                search=found,
                grown_circuit=self._with_all_edges,
                batch=judge,
                target=config.target_loss + ROUNDING,
                rounds=config.attack_rounds,
                steps=config.attack_steps,
            ).run(self.ablation)
        edge_masks, gates = circuit.edge_masks, circuit.gates
        meets_target = edge_masks.within(gates, judge, config.target_loss + ROUNDING)
        withstands = attacked is None or attacked.loss <= config.target_loss + ROUNDING
        result = FinderResult(
            edge_masks=replace(edge_masks, ablation=edge_masks.ablation.with_mean_ablation()),
            gates=gates,
            score=self.ablation.nodes(circuit.score),
            target=config.target_loss,
            finder="learned_pruning" if config.finder == "learned" else config.finder,
            settings=config.recorded(),
            baseline=self.baseline,
            reached=meets_target and withstands,
            seed=config.seed,
            paper_size=plain_size,
            excluded=self.excluded,
            embedding_edges=circuit.embedding_edges,
            attack=attacked,
        )
        return assemble(self.model, self.task, self.parts, result)

    def _search_of(
        self,
        best: list[Candidate],
        bisected: list[Tensor],
        judge: TokenizedPairs,
        on_progress: Callable[[float], None],
    ) -> Callable[[Ablation], Found]:
        """Return the search from these candidates, by the ablation values that it uses.

        Its circuit has the ablation values that judge it.

        Args:
            best: the candidates.
            bisected: (G,) each, their masks after bisection with the first ablation values.
            judge: the judging pairs.
            on_progress: gets the fraction of work done.
        """
        config, pace = self.config, Pace.of(self.config)
        second = self.baseline.second_sample(self.model, config)

        def search(ablation: Ablation) -> Found:
            masks = bisected
            if ablation is not self.ablation:
                masks = bisected_masks(ablation, best, judge, config.target_loss)
            nodes, trial = smallest_mask(ablation, best, masks, judge, config, on_progress)
            tries = Tries(lambda share: on_progress(pace.in_edges(share)))
            pruning = EdgePruning(ablation, second, judge, config, tries.count)
            edge_masks, gates = pruning.pruned_edges(nodes, trial.tau)
            part = None
            if config.embedding_edges:
                edges = self._embedding_edges(edge_masks, judge)
                edge_masks, part = pruning.pruned_embedding_edges(edge_masks, gates, edges)
            return Found(with_second_sample(edge_masks, second), gates, trial.tau, part)

        return search

    def _embedding_edges(self, edge_masks: EdgeMasks, judge: TokenizedPairs) -> EmbeddingEdges:
        """Return all embedding edges of a circuit, for the tokens of training and judging pairs."""
        tokenizer = tokenizer_of(self.model)
        batches = [tokenize_task(self.parts.train, self.model), judge]
        return EmbeddingEdges.of(
            self.model.transformer,
            token_groups(batches, tokenizer.vocab_size, tokenizer.token),
            read_channels(edge_masks, judge),
        )

    def _with_all_edges(self, mask: Tensor) -> tuple[EdgeMasks, Tensor]:
        """Return masks and gates of the circuit of some nodes (N,) and all edges between them.

        Excluded nodes are left out.
        """
        if self.ablation.excluded is not None:
            mask = mask.masked_fill(self.ablation.excluded, 0)
        second = self.baseline.second_sample(self.model, self.config)
        edge_masks = with_second_sample(EdgeMasks.of(self.ablation, mask), second)
        return edge_masks, torch.ones(edge_masks.size)

    def _paper_size(
        self, best: list[Candidate], masks: list[Tensor], judge: TokenizedPairs
    ) -> PaperSize | None:
        """Return the size at plain bisection, of the candidates that the finder itself ranked."""
        pairs = zip(best, masks, strict=True)
        finder = self.config.finder
        own = [(candidate, mask) for candidate, mask in pairs if candidate.finder == finder]
        mask = paper_mask(self.ablation, own, judge, self.config.target_loss) if own else None
        if mask is None:
            return None
        held_out = tokenize_task(self.parts.held_out, self.model)
        return paper_size(self.ablation, mask, judge, held_out)
