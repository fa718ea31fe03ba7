"""The ACDC search: test edges in order and remove each that increases the metric by less than tau.

The result is that of testing one edge after the other. Speculation makes it faster, because one
pass over many trials costs less than one pass per trial:

1. Guess for each of the next edges whether it will be removed.
2. Test them in one pass. The trial of an edge removes the edge itself and every edge before it that
   is guessed to be removed.
3. Decide in order, up to and including the first wrong guess. Until then every trial removed the
   right edges. Later trials did not: their measurements become the guesses of the next pass.

Source: Conmy et al. 2023 (arXiv 2304.14997), algorithm 1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from wirework.circuits.path_patching.state import (
    ALL_TOKENS,
    NO_TOKEN,
    Bools,
    EdgeNumbers,
    PatchedState,
    Trials,
)
from wirework.circuits.path_patching.trials import run_trials

CLOSE = 1e-6
"""An increase at least this close to tau is measured again in float64."""

_SAFETY = 8
"""So is one within this factor times the largest float32 error of the search so far."""

_TOKENS = 6144
"""Tokens of all trials per pass: fewer tokens need more passes, more are not faster."""

_FIRST_TRIALS, _MIN_TRIALS = 16, 4
"""Trials in the first pass, and the least per pass."""


@dataclass(frozen=True)
class SearchResult:
    """The kept edges of a search, and what the removal of each edge cost when it was tested."""

    kept: list[EdgeNumbers]
    """Kept edges in test order."""
    increases: dict[EdgeNumbers, float]
    """By edge: increase of the metric when it was removed, in the units of the metric."""
    metric: float
    """Metric of the run without the removed edges."""


def search(
    state: PatchedState,
    order: Iterable[EdgeNumbers],
    tau: float,
    *,
    guess: Mapping[EdgeNumbers, float] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> SearchResult:
    """Decide for every edge whether it is kept.

    Args:
        state: float64 run with nothing removed; at the end, the run of the kept edges.
        order: all edges in test order.
        tau: an edge is removed if the metric increases by less.
        guess: estimated increases of edges, for example from a search with another tau. It affects
            only the speed, never the result.
        on_progress: called after each pass with the number of edges decided so far.
    """
    order = list(order)
    decider = _Decider(state, tau, dict(guess or {}))
    increases: dict[EdgeNumbers, float] = {}
    n_trials = _FIRST_TRIALS
    while len(increases) < len(order):
        plan = _next_plan(state, order[len(increases) :], n_trials, decider)
        decided = decider.decide_(plan)
        increases |= decided
        n_trials = max(_MIN_TRIALS, 2 * sum(edge in decided for edge in plan.tested))
        on_progress(len(increases))
    kept = [edge for edge in order if not increases[edge] < tau]
    return SearchResult(kept, increases, state.metric)


@dataclass(frozen=True)
class _Plan:
    """The edges of the next pass, and the trials that test them."""

    edges: list[EdgeNumbers]
    """All edges, in test order."""
    tested: list[EdgeNumbers]
    """Edges with a trial each. The others need none: the output does not depend on their
    destination, so that removing them changes nothing."""
    removed: Bools
    """(tested edges, trials), the edges that each trial removes."""


class _Decider:
    """Decides the edges of each pass: in float32 where the result is clear, else in float64.

    The current run is kept in float64, with a copy rounded to float32. The trial that becomes the
    current run (or the first trial, if none does) is measured in both, which shows the size of
    float32 errors. There is no float32 copy where a small error can have a large effect: AbsTopK
    may select other channels, and under zero ablation a norm may divide by almost zero.
    """

    def __init__(self, exact: PatchedState, tau: float, guessed: dict[EdgeNumbers, float]) -> None:
        self.exact = exact
        config = exact.patched.transformer.config
        has_top_k = any(config.site_k(kind) is not None for kind in config.act_sites)
        needs_float64 = has_top_k or exact.patched.ablation == "zero"
        self.rounded = None if needs_float64 else exact.in_float32()
        self.tau = tau
        self.margin = CLOSE
        self.guessed = guessed

    def is_removed(self, edge: EdgeNumbers) -> bool:
        """Guess whether an edge will be removed."""
        return self.guessed.get(edge, 0.0) < self.tau

    def decide_(self, plan: _Plan) -> dict[EdgeNumbers, float]:
        """Test the edges of a plan; return the increase of each decided edge, in order.

        Removed edges are removed from the current run; guesses of the other edges are updated.
        """
        state = self.rounded or self.exact
        measured = _Measurements(run_trials(state, plan.tested, plan.removed))
        decisions = self._decide_in_order(plan, measured)
        while self.rounded is not None and (
            unclear := decisions.close_trials - measured.in_float64.keys()
        ):
            columns = sorted(unclear)
            trials = run_trials(self.exact, plan.tested, plan.removed[:, columns])
            float32_error = measured.replace_(columns, trials)
            self.margin = max(self.margin, _SAFETY * float32_error)
            decisions = self._decide_in_order(plan, measured)
        self.guessed |= decisions.estimated
        trials_of_run, column = measured.locate(decisions.current_trial)
        removed = [edge for edge, increase in decisions.decided.items() if increase < self.tau]
        self.exact.adopt_(trials_of_run, column, removed)
        if self.rounded is not None:
            self.rounded.copy_from_(self.exact, trials_of_run)
        return decisions.decided

    def _decide_in_order(self, plan: _Plan, measured: "_Measurements") -> "_Decisions":
        """Decide the edges of a plan as if they were tested one after the other."""
        trial_of = {edge: trial for trial, edge in enumerate(plan.tested)}
        decisions = _Decisions()
        metric_before, trial_before = self.exact.metric, -1
        guesses_hold = True
        for edge in plan.edges:
            trial = trial_of.get(edge, trial_before)
            metric = metric_before if trial == trial_before else measured.metrics[trial]
            increase = metric - metric_before
            if not guesses_hold:
                decisions.estimated[edge] = increase
            else:
                decisions.decided[edge] = increase
                if increase < self.tau:
                    decisions.current_trial = trial
                if trial != trial_before and abs(increase - self.tau) <= self.margin:
                    decisions.close_trials |= {trial, trial_before} - {-1}
                guesses_hold = (increase < self.tau) == self.is_removed(edge)
            if self.is_removed(edge):
                metric_before, trial_before = metric, trial
        if plan.tested:
            decisions.close_trials.add(max(decisions.current_trial, 0))
        return decisions


@dataclass
class _Decisions:
    """Decisions of one pass."""

    decided: dict[EdgeNumbers, float] = field(default_factory=dict)
    """Increase of each edge up to and including the first wrong guess."""
    estimated: dict[EdgeNumbers, float] = field(default_factory=dict)
    """Increase of each later edge, measured in a run with a wrong guess: only an estimate."""
    current_trial: int = -1
    """Trial that removes exactly the removed edges; -1 if that is the run before the pass."""
    close_trials: set[int] = field(default_factory=set)
    """Trials that must be measured in float64."""


class _Measurements:
    """Metrics of a plan's trials: all in one dtype, some measured again in float64."""

    def __init__(self, trials: Trials) -> None:
        self.metrics = list(trials.metrics)
        self.trials = trials
        self.in_float64: dict[int, tuple[Trials, int]] = {}

    def replace_(self, numbers: list[int], trials: Trials) -> float:
        """Replace trials by their float64 measurement; return the largest difference."""
        largest = 0.0
        for column, number in enumerate(numbers):
            self.in_float64[number] = (trials, column)
            largest = max(largest, abs(self.metrics[number] - trials.metrics[column]))
            self.metrics[number] = trials.metrics[column]
        return largest

    def locate(self, trial: int) -> tuple[Trials | None, int]:
        """Return the pass that contains a trial, in float64 if possible, and its column there."""
        return (None, 0) if trial < 0 else self.in_float64.get(trial, (self.trials, trial))


def _next_plan(
    state: PatchedState, remaining: list[EdgeNumbers], n_trials: int, decider: _Decider
) -> _Plan:
    """Plan one pass over the next edges, with at most `n_trials` trials and `_TOKENS` tokens."""
    kept, source_tokens, is_outdated = state.kept.copy(), state.source_tokens, False
    n_prompts, n_tokens = state.inputs[0].shape[:2]
    edges: list[EdgeNumbers] = []
    tested: list[EdgeNumbers] = []
    tokens_per_trial = 1
    for source, destination in remaining:
        if is_outdated and edges[-1][1] != destination:
            source_tokens, is_outdated = state.tokens_of_sources(kept), False
        needed = state.tokens_of_destination(destination, source_tokens)
        if needed != NO_TOKEN:
            n_needed = n_prompts * (n_tokens if needed == ALL_TOKENS else 1)
            tokens_per_trial = max(tokens_per_trial, n_needed)
            is_full = len(tested) >= n_trials or (len(tested) + 1) * tokens_per_trial > _TOKENS
            if tested and is_full:
                break
            tested.append((source, destination))
        edges.append((source, destination))
        if decider.is_removed((source, destination)):
            kept[destination, source], is_outdated = False, True
    removed = np.eye(len(tested), dtype=bool)
    for number, edge in enumerate(tested):
        removed[number, number:] |= decider.is_removed(edge)
    return _Plan(edges, tested, removed)
