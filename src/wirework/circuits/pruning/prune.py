"""Find the smallest circuit of a task: learned pruning with a hyperparameter search.

1. Trials with different settings train Heaviside masks on the training pairs (`learned_masks.py`).
2. The best trials are discretised by bisection and pruned greedily (`discretise.py`) on the judging
   pairs, and merged (`merging.py`).
3. Edges are pruned, then embedding edges if configured, and the circuit is checked with ablation
   values not used in the search.

Source: Gao et al. 2025, sec. 2.2, App. A.5.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuit_format import EmbeddingPart, PaperSize
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.embedding_edges import (
    EmbeddingEdges,
    EmbeddingMasks,
    read_channels,
)
from wirework.circuits.node_assembly import FinderResult, assemble
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.adversarial_search import (
    AdversarialSearch,
    Found,
    with_first_adversary,
)
from wirework.circuits.pruning.discretise import clean_up, closest, discretise, ranking
from wirework.circuits.pruning.hyperparameter_search import Round, rounds
from wirework.circuits.pruning.learned_masks import learn_masks
from wirework.circuits.pruning.merging import CircuitSize, cleaned_and_merged, size_of
from wirework.circuits.pruning.paper_size import paper_mask, paper_size
from wirework.circuits.pruning.search_folder import (
    Candidate,
    kept_best,
    merged,
    open_search,
    write_candidates,
)
from wirework.circuits.pruning.search_progress import Pace, Tries, rungs
from wirework.circuits.scoring.scores import score_nodes
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.errors import InputError
from wirework.leftovers import clear_held
from wirework.locks import locked
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.tasks import Task, TokenizedPairs, load_task, tokenizer_of
from wirework.tasks.task_loss import chance_loss, reduced
from wirework.tasks.task_split import Parts, parts_of
from wirework.tasks.token_groups import token_groups

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_SCORE_PAIRS = 128
"""Pairs on which nodes are scored."""
_QUICK_PAIRS = 32
"""Judging pairs on which trials are compared; finalists use all."""
_ALWAYS_CLEANED = 256
"""Candidates of up to this many nodes after bisection are always cleaned up."""
_MOST_TIMES = 2
"""Larger candidates are dropped if they have more than this times the nodes of the smallest."""
_ROUNDING = 1e-5
"""Nats by which a loss may exceed the target: circuits end close to it, and rounding depends on the
size of a batch."""
_RETRIES = 6
"""Retries for a circuit that misses the target with the means of the second sample."""
_OVERSHOOT = 1.5
"""A retry lowers the target by this times the excess loss."""
_SLACK = 0.01
"""Nats, as a mean over prompts, above the model's own loss that a trial may always have."""


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
    trial_selection: "TrialSelection"
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
        trial_selection = _trial_selection(ablation, train, judge, config)
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
        trial_selection = _trial_selection(ablation, train, judge, self.config)
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
        return _model_loss(ablation, tokenize_task(self.parts.judge, self.model))

    def ranked(self, on_progress: Callable[[float], None] = ignore_progress) -> list[Candidate]:
        """Return the candidates before greedy removal: the best trials and the score rankings.

        Raises:
            InputError: the folder of the search cannot be written, is damaged or in use.
        """
        config = self.config
        if config.finder != "learned":
            return [self.trial_selection.by_score(config.finder)]
        folder = self._folder()
        with _folder_lock(folder):
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
        bisected = self._bisected(best, judge)
        plain_size = self._paper_size(best, bisected, judge)
        found, attacked = self._search_of(best, bisected, judge, on_progress), None
        if self.ablation.value_range is None:
            circuit = found(self.ablation)
        else:
            circuit, attacked = AdversarialSearch(
                search=found,
                grown_circuit=self._with_all_edges,
                batch=judge,
                target=config.target_loss + _ROUNDING,
                rounds=config.attack_rounds,
                steps=config.attack_steps,
            ).run(self.ablation)
        edge_masks, gates = circuit.edge_masks, circuit.gates
        meets_target = edge_masks.within(gates, judge, config.target_loss + _ROUNDING)
        withstands = attacked is None or attacked.loss <= config.target_loss + _ROUNDING
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

    def _bisected(self, best: list[Candidate], judge: TokenizedPairs) -> list[Tensor]:
        """Return the mask (G,) of each candidate after bisection."""
        target = self.config.target_loss
        return [
            discretise(self.ablation, candidate.tau, judge, target, candidate.nodes)
            for candidate in best
        ]

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
        pace = Pace.of(self.config)

        def search(ablation: Ablation) -> Found:
            run = replace(self, ablation=ablation)
            masks = bisected if ablation is self.ablation else run._bisected(best, judge)
            nodes, trial = run._smallest(best, masks, judge, on_progress)
            tries = Tries(lambda share: on_progress(pace.in_edges(share)))
            edge_masks, gates = run._meeting_target_on_second_sample(nodes, trial, judge, tries)
            part = None
            if self.config.embedding_edges:
                edge_masks, part = run._with_embedding_edges(edge_masks, gates, tries)
            return Found(self._with_second_sample(edge_masks), gates, trial.tau, part)

        return search

    def _with_all_edges(self, mask: Tensor) -> tuple[EdgeMasks, Tensor]:
        """Return masks and gates of the circuit of some nodes (N,) and all edges between them.

        Excluded nodes are left out.
        """
        if self.ablation.excluded is not None:
            mask = mask.masked_fill(self.ablation.excluded, 0)
        edge_masks = self._with_second_sample(EdgeMasks.of(self.ablation, mask))
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

    def _with_second_sample(self, edge_masks: EdgeMasks) -> EdgeMasks:
        """Return the same masks with ablation values of the second sample of text."""
        ablation = self.baseline.second_sample(self.model, self.config)
        return edge_masks if ablation is None else replace(edge_masks, ablation=ablation)

    def _meeting_target_on_second_sample(
        self, nodes: Tensor, trial: Candidate, judge: TokenizedPairs, tries: Tries
    ) -> tuple[EdgeMasks, Tensor]:
        """Prune the edges of a circuit so that it meets the target on the second sample too.

        Greedy removal goes right up to its target and so overfits to the means that it uses. If
        the circuit then misses the target with the second means, it is pruned again from its nodes
        and the next best of the ranking, with a target lowered by 1.5 times the excess loss.

        Args:
            nodes: (G,), the mask of its nodes.
            trial: the candidate that the nodes come from.
            judge: the judging pairs.
            tries: counts the removals that are tried.

        Returns:
            Masks over its nodes and edges, and the gates of the circuit.
        """
        goal = self.config.target_loss
        model_loss = _model_loss(self.ablation, judge)
        target, lowest_target = goal, model_loss if model_loss < goal else 0.0
        edge_masks, gates = _with_edges(self.ablation, nodes, judge, target, self.config, tries)
        if not self.ablation.within(nodes, judge, goal):
            return edge_masks, gates  # no candidate reaches it: this is the closest one
        for _ in range(_RETRIES):
            excess = self._highest_second_sample_loss(edge_masks, gates, judge) - goal
            if excess <= _ROUNDING:
                break
            target = max(lowest_target, target - _OVERSHOOT * excess)
            nodes = self._grown(nodes, trial, judge, target)
            if not self.ablation.within(nodes, judge, target):
                break
            edge_masks, gates = _with_edges(
                self.ablation, nodes, judge, target, self.config, tries, (edge_masks, gates)
            )
        return edge_masks, gates

    def _with_embedding_edges(
        self, edge_masks: EdgeMasks, gates: Tensor, tries: Tries
    ) -> tuple[EdgeMasks, EmbeddingPart]:
        """Remove the embedding edges that a circuit does not need, and say which it keeps.

        As for edges, the target is lowered where the circuit misses it on the second sample. If it
        always does, all embedding edges are kept.
        """
        parts, tokenizer = self.parts, tokenizer_of(self.model)
        judge = tokenize_task(parts.judge, self.model)
        batches = [tokenize_task(parts.train, self.model), judge]
        edges = EmbeddingEdges.of(
            self.model.transformer,
            token_groups(batches, tokenizer.vocab_size, tokenizer.token),
            read_channels(edge_masks, judge),
        )
        masks = EmbeddingMasks(edge_masks, gates, edges)
        everything = torch.ones(masks.size)
        goal = target = self.config.target_loss
        for _ in range(_RETRIES + 1):
            kept = clean_up(masks, everything, judge, target, tries.count)
            masked = masks.masked(kept[None])
            excess = self._highest_second_sample_loss(masked, gates, judge) - goal
            if excess <= _ROUNDING:
                return masked, edges.part(kept)
            if bool(kept.all()):  # nothing is removed, so that a lower target changes nothing
                break
            target -= _OVERSHOOT * excess
        return masks.masked(everything[None]), edges.part(everything)

    def _highest_second_sample_loss(
        self, edge_masks: EdgeMasks, gates: Tensor, judge: TokenizedPairs
    ) -> float:
        """Return the highest task loss over ablation modes, on the second sample of text."""
        ablation_modes = self._with_second_sample(edge_masks).ablation_modes()
        return max(float(mode.losses(gates[None], judge)[0]) for mode in ablation_modes)

    def _grown(
        self, nodes: Tensor, trial: Candidate, judge: TokenizedPairs, target: float
    ) -> Tensor:
        """Add the fewest nodes, best-ranked first, that reach a lower target."""
        rank = ranking(trial.tau)
        kept_first = len(rank) * nodes.to(rank.device) - rank
        grown = discretise(self.ablation, kept_first, judge, target)
        if self.config.prune_edges or not self.config.clean_up:
            return grown  # nodes are pruned together with the edges
        return clean_up(self.ablation, grown, judge, target)

    def _smallest(
        self,
        best: list[Candidate],
        masks: list[Tensor],
        judge: TokenizedPairs,
        on_progress: Callable[[float], None],
    ) -> tuple[Tensor, Candidate]:
        """Return the smallest node mask (G,) of these candidates, and the candidate it is from.

        Args:
            best: the candidates.
            masks: (G,) each, their masks after bisection.
            judge: the judging pairs.
            on_progress: gets the fraction of work done.
        """
        target = self.config.target_loss
        if not any(self.ablation.within(mask, judge, target) for mask in masks):
            scores = [candidate.tau for candidate in best]
            nodes, number = closest(self.ablation, scores, judge)
            return nodes, best[number]
        affordable = affordable_candidates(best, masks)
        masks = [mask for _, mask in affordable]

        pace = Pace.of(self.config)

        def on_done(cleaned: float, merged: float) -> None:
            on_progress(pace.in_clean_ups(cleaned, merged, len(masks)))

        if self.config.clean_up:
            nodes, number = cleaned_and_merged(self.ablation, masks, judge, target, on_done)
        else:
            sizes = [size_of(self.ablation, mask) for mask in masks]
            number = sizes.index(min(sizes))
            nodes = masks[number]
        return nodes, affordable[number][0]


@contextmanager
def _folder_lock(folder: Path | None) -> Iterator[None]:
    """Lock the folder of a search against other processes inside a `with` block."""
    if folder is None:
        yield
        return
    with locked(folder / "lock", f"the search in {folder}"):
        clear_held([folder])
        yield


def without_feasibility_checks(config: PruneConfig) -> PruneConfig:
    """Return a config with the feasibility checks disabled, for searches to compare with.

    Only nodes and edges are compared, so that embedding edges are not pruned.
    """
    return config.model_copy(update={"allow_unreached": True, "embedding_edges": False})


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


def _with_edges(
    ablation: Ablation,
    nodes: Tensor,
    judge: TokenizedPairs,
    target: float,
    config: PruneConfig,
    tries: Tries,
    before: tuple[EdgeMasks, Tensor] | None = None,
) -> tuple[EdgeMasks, Tensor]:
    """Return masks and gates of a circuit's nodes and edges, with the edges pruned if configured.

    Args:
        ablation: the model with its gates.
        nodes: (G,), the mask of the circuit's nodes.
        judge: the judging pairs.
        target: task loss in nats.
        config: settings of the search.
        tries: counts the removals that are tried.
        before: a circuit with some of these nodes. Greedy removal starts without the edges that it
            lacks, if the target is met without them.
    """
    edge_masks = EdgeMasks.of(ablation, ablation.nodes(nodes))
    gates = torch.ones(edge_masks.size)
    if config.prune_edges:
        fewer = gates if before is None else edge_masks.without_closed(*before)
        start = fewer if edge_masks.within(fewer, judge, target) else gates
        gates = clean_up(edge_masks, start, judge, target, tries.count)
    return edge_masks.compacted(gates)


def check_chance(config: PruneConfig) -> None:
    """Check that a target loss is below chance.

    Raises:
        InputError: it is not: an empty circuit would reach it.
    """
    chance = chance_loss(config.loss_reduction)
    if config.target_loss >= chance and not config.allow_unreached:
        raise InputError(
            f"target_loss (--target-loss) {config.target_loss:g} asks for nothing: a circuit "
            f"without nodes has {chance:.3f} nats, which is chance; give less"
        )


def check_target(ablation: Ablation, batch: TokenizedPairs, target: float) -> None:
    """Check that the model itself reaches the target loss.

    Raises:
        InputError: its task loss is above the target, or not a number.
    """
    model_loss = _model_loss(ablation, batch)
    if not model_loss <= target:
        raise InputError(
            f"the model's own task loss {model_loss:.3f} does not reach the target {target:g}: no "
            "circuit of it can be expected to; raise the target (--target-loss) or train the model "
            "further"
        )


def _model_loss(ablation: Ablation, batch: TokenizedPairs) -> float:
    """Return the task loss of the model with nothing ablated but excluded nodes, in nats.

    Of several ablation modes, which differ in the values of excluded nodes, the highest counts.
    """
    everything = torch.ones(1, ablation.size, device=batch.tokens.device)
    modes = (ablation,) if ablation.excluded is None else ablation.ablation_modes()
    return max(float(mode.losses(everything, batch)[0]) for mode in modes)


def _trial_selection(
    ablation: Ablation, train: TokenizedPairs, judge: TokenizedPairs, config: PruneConfig
) -> "TrialSelection":
    """Prepare the trials of one task; with a warm start the nodes are scored first."""
    quick = judge.select(torch.arange(min(judge.n_pairs, _QUICK_PAIRS)))
    target = trial_target(ablation, quick, config.target_loss)
    warm = None
    if config.warm_start is not None:
        rank = ranking(score_gates(ablation, train, config.warm_start, config.seed))
        warm = 1 - 2 * rank / max(1, len(rank) - 1)
    return TrialSelection(ablation, train, quick, target, config, warm)


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
    model_loss = _model_loss(ablation, batch)
    reduction = ablation.loss_reduction
    if model_loss >= chance_loss(reduction):
        return target
    return max(target, model_loss + reduced(_SLACK, reduction))
