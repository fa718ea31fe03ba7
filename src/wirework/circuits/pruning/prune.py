"""Find the smallest circuit of a task by learned pruning with a search over its settings.

Masks are trained on one part of the task's pairs (`masks.py`), made discrete and cleaned up on
another (`discretise.py`). Source: Gao et al. 2025, sec. 2.2, App. A.5.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.circuits.build import CHANCE, Finding, assemble
from wirework.circuits.circuit import Circuit, rows_of
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.pruning.discretise import clean_up, closest, discretise, ranking
from wirework.circuits.pruning.hyperparameter_search import Round, rounds
from wirework.circuits.pruning.learned_masks import learn_masks
from wirework.circuits.pruning.merging import Size, cleaned_and_merged, size_of
from wirework.circuits.pruning.search_folder import (
    Candidate,
    kept_best,
    merged,
    open_search,
    write_candidates,
)
from wirework.circuits.pruning.search_progress import Pace, rungs
from wirework.circuits.scoring.scores import score_nodes
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.errors import InputError
from wirework.leftovers import clear_held
from wirework.locks import locked
from wirework.tasks import Task, TokenizedPairs, load_task, tokenizer_of
from wirework.tasks.split import Parts, parts_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_SCORE_PAIRS = 128  # pairs that a score is taken on
_QUICK_PAIRS = 32  # trials are compared on so many pairs; finalists are judged on all
_CHEAP = 256  # gates after bisection that are cleaned up in any case
_MANY = 2  # times the gates of the smallest order beyond which more than that are not cleaned up
_ROUNDING = 1e-5  # nats: a search ends right at its target, and passes of other sizes round
_TRIES = 6  # times that a circuit is made anew because it misses the target on unseen text
_OVERSHOOT = 1.5  # times by how much it missed that the next one's target is lower
_SLACK = 0.01  # nats above the whole model's own loss on them that a trial may always have


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
) -> Circuit:
    """Find the smallest circuit of a task whose loss reaches the target.

    The same model, task, text and config give the same circuit on the same machine.

    Args:
        model: with a tokeniser; a path is loaded.
        task: itself, or what `ww.task` takes. Its pairs are parted into those that train, those
            that judge and those held out.
        config: None for the defaults.
        target_loss: in nats; wins over `config.target_loss`; None for that.
        data: tokens of the corpus the model was trained on, for the means; None to read the
            means that lie beside the model or, where there are none, the corpus of its run.
        search: folder to keep the search in, so that the same call goes on with it after a stop;
            None keeps it in memory.
        progress: show a bar on standard error.
        **overrides: settings of `PruneConfig` by name (`steps=100`); they win over `config`.

    Raises:
        InputError: the task does not fit the model or has fewer than four pairs, there are no
            means, the whole model does not reach the target or the target is above chance
            (`config.allow_unreached` goes on all the same), or `search` cannot be written to.

    Source: Gao et al. 2025, sec. 2.2, App. A.5.
    """
    from wirework.model import load

    model, task = load(model), load_task(task)
    changes = overrides if target_loss is None else {**overrides, "target_loss": target_loss}
    config = PruneConfig.overridden(config, changes)
    check_chance(config)
    tokenizer_of(model)
    with Progress(f"prune {task.name}", shown=progress) as bar:
        hunt = PruningRun.of(model, task, config, AblationBaseline.of(model, data, config), search)
        return hunt.run(bar.update)


def ignore_progress(_: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class PruningRun:
    """A search for a circuit, all it needs looked at and measured beforehand."""

    model: "Model"
    task: Task
    config: PruneConfig
    parts: Parts
    baseline: AblationBaseline
    ablation: Ablation
    contest: "_TrialSelection"
    search: Path | None
    """Where it is kept; None for in memory."""

    @classmethod
    def of(
        cls,
        model: "Model",
        task: Task,
        config: PruneConfig,
        baseline: AblationBaseline,
        search: str | Path | None = None,
    ) -> "PruningRun":
        """Prepare what `prune` does, which says what each argument is. Nothing is written.

        Raises:
            InputError: nothing can be found for this task: it does not fit the model, has too few
                pairs, or the whole model does not reach the target.
        """
        fitted = task.fitted(tokenizer_of(model), model.config.n_ctx)
        parts = parts_of(fitted, config.eval_pairs, config.seed)
        train, judge = rows_of(parts.train, model), rows_of(parts.judge, model)
        ablation = baseline.ablation(model, config)
        if not config.allow_unreached:
            check_target(ablation, judge, config.target_loss)
        contest = _contest(ablation, train, judge, config)
        kept = None if search is None else Path(search)
        return cls(model, task, config, parts, baseline, ablation, contest, kept)

    def ranked(self, on_progress: Callable[[float], None] = ignore_progress) -> list[Candidate]:
        """Return what orders the nodes, before any clean-up: the best trials and scores.

        Raises:
            InputError: the search's folder cannot be written to, is damaged or in use.
        """
        config = self.config
        if config.finder != "learned":
            return [self.contest.by_score(config.finder)]
        folder = self._folder()
        with _held(folder):
            best = self.contest.best(folder, on_progress)
        return best + [self.contest.by_score(method) for method in config.extra_rankings]

    def _folder(self) -> Path | None:
        if self.search is None:
            return None
        return open_search(self.search, self.model, self.task, self.config, self.baseline.origin)

    def run(self, on_progress: Callable[[float], None] = ignore_progress) -> Circuit:
        """Search; `on_progress` gets the share of the work that is done."""
        return self.made_of(self.ranked(on_progress), on_progress)

    def made_of(
        self, best: list[Candidate], on_progress: Callable[[float], None] = ignore_progress
    ) -> Circuit:
        """Return the smallest circuit that these orders of the nodes come to."""
        config, judge = self.config, rows_of(self.parts.judge, self.model)
        nodes, trial = self._smallest(best, judge, on_progress)
        edge_masks, gates = self._accepted(nodes, trial, judge)
        held_out = self._unseen(edge_masks)
        found = Finding(
            edge_masks=replace(held_out, ablation=held_out.ablation.at_means()),
            gates=gates,
            score=self.ablation.nodes(trial.tau),
            target=config.target_loss,
            finder="learned_pruning" if config.finder == "learned" else config.finder,
            settings=config.recorded(),
            baseline=self.baseline,
            reached=held_out.within(gates, judge, config.target_loss + _ROUNDING),
            seed=config.seed,
        )
        return assemble(self.model, self.task, self.parts, found)

    def _unseen(self, edge_masks: EdgeMasks) -> EdgeMasks:
        """Return the same gates with means (and values) of text that the search has not seen."""
        ablation = self.baseline.held_out(self.model, self.config)
        return edge_masks if ablation is None else replace(edge_masks, ablation=ablation)

    def _accepted(
        self, nodes: Tensor, trial: Candidate, judge: TokenizedPairs
    ) -> tuple[EdgeMasks, Tensor]:
        """Return nodes (G,) with their edges, cleaned up, that meet the target on unseen text too.

        A clean-up goes right up to its target and so fits the noise of the means that it sees.
        Where the circuit then misses the target with other means, it is made again with a target
        lower by half as much again as it missed, from its nodes and the next best of their order.
        """
        goal = self.config.target_loss
        own = _own_loss(self.ablation, judge)
        target, least = goal, own if own < goal else 0.0
        edge_masks, gates = _wired(self.ablation, nodes, judge, target, self.config)
        if not self.ablation.within(nodes, judge, goal):
            return edge_masks, gates  # nothing reaches it: this is what comes closest
        for _ in range(_TRIES):
            missed = self._worst_unseen(edge_masks, gates, judge) - goal
            if missed <= _ROUNDING:
                break
            target = max(least, target - _OVERSHOOT * missed)
            nodes = self._grown(nodes, trial, judge, target)
            if not self.ablation.within(nodes, judge, target):
                break
            edge_masks, gates = _wired(
                self.ablation, nodes, judge, target, self.config, (edge_masks, gates)
            )
        return edge_masks, gates

    def _worst_unseen(self, edge_masks: EdgeMasks, gates: Tensor, judge: TokenizedPairs) -> float:
        """Return the task loss on unseen text, the highest of all ways to freeze."""
        ablation_modes = self._unseen(edge_masks).ablation_modes()
        return max(float(view.losses(gates[None], judge)[0]) for view in ablation_modes)

    def _grown(
        self, nodes: Tensor, trial: Candidate, judge: TokenizedPairs, target: float
    ) -> Tensor:
        """Add the fewest nodes, the best of an order first, that reach a lower target."""
        rank = ranking(trial.tau)
        kept_first = len(rank) * nodes.to(rank.device) - rank
        more = discretise(self.ablation, kept_first, judge, target)
        if self.config.prune_edges or not self.config.clean_up:
            return more  # nodes are cleaned up with the edges
        return clean_up(self.ablation, more, judge, target)

    def _smallest(
        self, best: list[Candidate], judge: TokenizedPairs, on_progress: Callable[[float], None]
    ) -> tuple[Tensor, Candidate]:
        """Return the nodes, as gates (G,), that these orders come to, and the order they had."""
        target = self.config.target_loss
        found = [discretise(self.ablation, one.tau, judge, target, one.nodes) for one in best]
        if not any(self.ablation.within(mask, judge, target) for mask in found):
            nodes, which = closest(self.ablation, [one.tau for one in best], judge)
            return nodes, best[which]
        chosen = worth_it(best, found)
        masks = [mask for _, mask in chosen]

        pace = Pace.of(self.config)

        def on_done(cleaned: int, merged: int) -> None:
            on_progress(pace.in_clean_ups(cleaned, merged, len(masks)))

        if self.config.clean_up:
            nodes, which = cleaned_and_merged(self.ablation, masks, judge, target, on_done)
        else:
            sizes = [size_of(self.ablation, mask) for mask in masks]
            which = sizes.index(min(sizes))
            nodes = masks[which]
        return nodes, chosen[which][0]


@contextmanager
def _held(folder: Path | None) -> Iterator[None]:
    """Keep other processes out of a search's folder for a `with` block."""
    if folder is None:
        yield
        return
    with locked(folder / "lock", f"the search in {folder}"):
        clear_held([folder])
        yield


def without_feasibility_checks(config: PruneConfig) -> PruneConfig:
    """Return the settings with which a search on a task is made whatever comes of it."""
    return config.model_copy(update={"allow_unreached": True})


def worth_it(best: list[Candidate], masks: list[Tensor]) -> list[tuple[Candidate, Tensor]]:
    """Leave out orders of the nodes whose clean-up would take long and hardly win.

    The time goes with the square of the nodes that bisection leaves, and where these are many times
    those of another order, so they are after it. The smallest always stays.

    Args:
        best: orders of the nodes.
        masks: (G,) each, what bisection left of them.
    """
    sizes = [int(mask.sum()) for mask in masks]
    most = max(_CHEAP, _MANY * min(sizes))
    pairs = zip(best, masks, sizes, strict=True)
    return [(one, mask) for one, mask, size in pairs if size <= most]


def _wired(
    ablation: Ablation,
    nodes: Tensor,
    judge: TokenizedPairs,
    target: float,
    config: PruneConfig,
    before: tuple[EdgeMasks, Tensor] | None = None,
) -> tuple[EdgeMasks, Tensor]:
    """Return a circuit (G,) as nodes and edges with their gates, idle edges and nodes left out.

    `before` is a circuit of some of these nodes: the clean-up begins without the edges that it does
    without, if the target is met so.
    """
    edge_masks = EdgeMasks.of(ablation, ablation.nodes(nodes))
    gates = torch.ones(edge_masks.size)
    if config.prune_edges:
        fewer = gates if before is None else edge_masks.without_closed(*before)
        start = fewer if edge_masks.within(fewer, judge, target) else gates
        gates = clean_up(edge_masks, start, judge, target)
    return edge_masks.reduced(gates)


def check_chance(config: PruneConfig) -> None:
    """Make sure that a target asks for something.

    Raises:
        InputError: it is above chance, which an empty circuit reaches.
    """
    if config.target_loss >= CHANCE and not config.allow_unreached:
        raise InputError(
            f"target_loss (--target-loss) {config.target_loss:g} asks for nothing: a circuit "
            f"without nodes has {CHANCE:.3f} nats, which is chance; give less"
        )


def check_target(ablation: Ablation, rows: TokenizedPairs, target: float) -> None:
    """Make sure that the whole model does what is asked of a circuit.

    Raises:
        InputError: its own task loss is above the target, or not a number.
    """
    own = _own_loss(ablation, rows)
    if not own <= target:
        raise InputError(
            f"the model's own task loss {own:.3f} does not reach the target {target:g}: no circuit "
            "of it can be expected to; raise the target (--target-loss) or train the model further"
        )


def _own_loss(ablation: Ablation, rows: TokenizedPairs) -> float:
    """Return the task loss with nothing ablated, nats."""
    everything = torch.ones(1, ablation.size, device=rows.tokens.device)
    return float(ablation.losses(everything, rows)[0])


def _contest(
    ablation: Ablation, train: TokenizedPairs, judge: TokenizedPairs, config: PruneConfig
) -> "_TrialSelection":
    quick = judge.select(torch.arange(min(judge.n_pairs, _QUICK_PAIRS)))
    target = quick_target(ablation, quick, config.target_loss)
    warm = None
    if config.warm_start is not None:
        rank = ranking(score_gates(ablation, train, config.warm_start, config.seed))
        warm = 1 - 2 * rank / (len(rank) - 1)
    return _TrialSelection(ablation, train, quick, target, config, warm)


def score_gates(ablation: Ablation, rows: TokenizedPairs, method: str, seed: int) -> Tensor:
    """Return the score (G,) of each gate: the highest of its nodes, on some of the rows."""
    few = rows.select(torch.arange(min(rows.n_pairs, _SCORE_PAIRS)))
    score = score_nodes(ablation.untied().at_means(), few, method, seed)
    if ablation.tie is None:
        return score
    least = torch.full((ablation.size,), -torch.inf, device=score.device)
    return least.scatter_reduce(0, ablation.tie, score, "amax")


@dataclass(frozen=True)
class _TrialSelection:
    """Trials of one task, compared on a few of the judging pairs and before any clean-up."""

    ablation: Ablation
    train: TokenizedPairs
    quick: TokenizedPairs
    target: float
    config: PruneConfig
    warm: Tensor | None
    """(G,), as `learn_masks` takes it."""

    def by_score(self, method: str) -> Candidate:
        """Return the order that a score gives, as if it were a trial."""
        score = score_gates(self.ablation, self.train, method, self.config.seed)
        return Candidate(*self._size(score), score)

    def best(self, folder: Path | None, on_progress: Callable[[float], None]) -> list[Candidate]:
        """Return the `finalists` smallest; `on_progress` gets the share of all work done."""
        count = self.config.finalists
        best, pace = [] if folder is None else kept_best(folder, count), Pace.of(self.config)
        for current in rounds(self.config, folder):
            found = self._run(current, on_progress)
            best = merged(best, found.values())[:count]
            if folder is not None:
                write_candidates(folder, best)  # before the study: what it knows must lie there
            tried = range(len(current.settings))
            on_progress(pace.in_trials(current.first + len(tried), 0, 0))
            current.tell([float(found[i].edges) if i in found else None for i in tried])
        return best[:count]

    def _run(self, current: Round, on_progress: Callable[[float], None]) -> dict[int, Candidate]:
        """Train a round; return, by its place in it, each trial that was not stopped."""
        config, count = self.config, len(current.settings)
        stops = rungs(config)
        left, pace = list(range(count)), Pace.of(config)
        on_progress(pace.in_trials(current.first, count, 0))

        def after_step(step: int, which: list[int], tau: Tensor) -> list[bool]:
            on_progress(pace.in_trials(current.first, count, step))
            if step not in stops:
                return [True] * len(which)
            go_on = current.promising(step, which, [self._size(one).edges for one in tau])
            left[:] = [place for place, on in zip(which, go_on, strict=True) if on]
            return go_on

        taus = learn_masks(
            self.ablation,
            self.train,
            current.settings,
            steps=config.steps,
            batch_pairs=config.batch_pairs,
            seeds=[1000 * config.seed + current.first + place for place in range(count)],
            warm=self.warm,
            after_step=after_step,
        )
        return {place: Candidate(*self._size(taus[place]), taus[place]) for place in left}

    def _size(self, tau: Tensor) -> Size:
        """Return the size of the circuit that a trial's masks give."""
        return size_of(self.ablation, discretise(self.ablation, tau, self.quick, self.target))


def quick_target(ablation: Ablation, rows: TokenizedPairs, target: float) -> float:
    """Return the loss in nats to compare trials at: one that the model can reach on these rows.

    A model that reaches the target on all pairs may miss it on a few of them, and then every trial
    would come out with every node. One that is no better than chance sets no bar: below it an empty
    circuit would win every contest, though masks may reach the target all the same.
    """
    own = _own_loss(ablation, rows)
    return target if own >= CHANCE else max(target, own + _SLACK)
