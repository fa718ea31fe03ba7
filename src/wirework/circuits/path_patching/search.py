"""The ACDC search: test edges in order and remove each that increases the metric by less than tau.

The result is exactly that of testing one edge at a time, but faster by speculation: the next
decisions are guessed and tested in one pass, each trial assuming that the guesses before it are
right. All decisions up to and including the first wrong guess are valid. After a wrong guess, the
measurements of the later edges become the new guesses.
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
from wirework.circuits.path_patching.trials import tried

CLOSE = 1e-6
"""An increase at least this close to tau is measured again in float64."""

_SAFETY = 8
"""Increases within this factor times the largest float32 error so far count as close too."""

_TOKENS = 6144
"""Tokens of all trials per pass: fewer need more calls, more are not faster."""

_FIRST, _LEAST = 16, 4
"""Trials in the first pass, and minimum per pass."""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search."""

    kept: list[EdgeNumbers]
    """Kept edges in test order."""
    growth: dict[EdgeNumbers, float]
    """Increase of the metric when each edge was removed."""
    metric: float
    """Metric of the run with all other edges removed."""


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
        on_progress: called from time to time with the number of edges decided.
    """
    order = list(order)
    judge = _Judge(state, tau, dict(guess or {}))
    growth: dict[EdgeNumbers, float] = {}
    length = _FIRST
    while len(growth) < len(order):
        plan = _plan(state, order[len(growth) :], length, judge)
        decided = judge.decide_(plan)
        growth |= decided
        length = max(_LEAST, 2 * sum(edge in decided for edge in plan.tested))
        on_progress(len(growth))
    return SearchResult([edge for edge in order if not growth[edge] < tau], growth, state.metric)


@dataclass(frozen=True)
class _Plan:
    """The next edges, and those of them that need a trial."""

    edges: list[EdgeNumbers]
    tested: list[EdgeNumbers]
    """Edges with a trial each; the output no longer depends on the others."""
    removed: Bools
    """(tested edges, trials), the edges that each trial removes."""


class _Judge:
    """Decides the edges of a pass: in float32 where the result is clear, else in float64.

    The current run is kept in float64; a float32 copy is rounded from it. The trial that becomes
    the current run (or the first trial) is always measured in both, which bounds the float32 error.
    There is no float32 copy where rounding may have large effects: AbsTopK may select other
    entries, and under zero ablation a norm may divide by almost zero.
    """

    def __init__(self, exact: PatchedState, tau: float, guessed: dict[EdgeNumbers, float]) -> None:
        self.exact = exact
        config = exact.patched.transformer.config
        smooth = all(config.site_k(kind) is None for kind in config.act_sites)
        harmless = smooth and exact.patched.ablation != "zero"
        self.quick = exact.in_float32() if harmless else None
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
        measured = _Measured(tried(self.quick or self.exact, plan.tested, plan.removed))
        decision = self._walk(plan, measured)
        while self.quick is not None and (close := decision.close - measured.exact.keys()):
            trials = tried(self.exact, plan.tested, plan.removed[:, sorted(close)])
            apart = measured.put(sorted(close), trials)
            self.margin = max(self.margin, _SAFETY * apart)
            decision = self._walk(plan, measured)
        self.guessed |= decision.later
        taken, column = measured.of(decision.chosen)
        gone = [edge for edge, growth in decision.decided.items() if growth < self.tau]
        self.exact.take_(taken, column, gone)
        if self.quick is not None:
            self.quick.follow_(self.exact, taken)
        return decision.decided

    def _walk(self, plan: _Plan, measured: "_Measured") -> "_Decision":
        """Decide the edges of a plan as if they were tested one by one."""
        numbers = {edge: number for number, edge in enumerate(plan.tested)}
        decision = _Decision()
        before, last = self.exact.metric, -1
        right = True
        for edge in plan.edges:
            number = numbers.get(edge, last)
            metric = before if number == last else measured.metric[number]
            growth = metric - before
            if not right:
                decision.later[edge] = growth
            else:
                decision.decided[edge] = growth
                if growth < self.tau:
                    decision.chosen = number
                if number != last and abs(growth - self.tau) <= self.margin:
                    decision.close |= {number, last} - {-1}
                right = (growth < self.tau) == self.is_removed(edge)
            if self.is_removed(edge):
                before, last = metric, number
        if plan.tested:
            decision.close.add(max(decision.chosen, 0))
        return decision


@dataclass
class _Decision:
    """Decisions of one pass."""

    decided: dict[EdgeNumbers, float] = field(default_factory=dict)
    """Increase for the edges up to the first wrong guess."""
    later: dict[EdgeNumbers, float] = field(default_factory=dict)
    """Increase for later edges, measured in a run with a wrong guess: only an estimate."""
    chosen: int = -1
    """Trial equal to the run without all removed edges; -1 for the current run."""
    close: set[int] = field(default_factory=set)
    """Trials that must be measured in float64."""


class _Measured:
    """Measured trials of a plan: all in one dtype, some again in float64."""

    def __init__(self, trials: Trials) -> None:
        self.metric = list(trials.metric)
        self.first = trials
        self.exact: dict[int, tuple[Trials, int]] = {}

    def put(self, numbers: list[int], trials: Trials) -> float:
        """Replace trials by their float64 measurement; return the largest difference."""
        apart = 0.0
        for column, number in enumerate(numbers):
            self.exact[number] = (trials, column)
            apart = max(apart, abs(self.metric[number] - trials.metric[column]))
            self.metric[number] = trials.metric[column]
        return apart

    def of(self, number: int) -> tuple[Trials | None, int]:
        """Return the pass and column that contain a trial."""
        return (None, 0) if number < 0 else self.exact.get(number, (self.first, number))


def _plan(state: PatchedState, order: list[EdgeNumbers], length: int, judge: _Judge) -> _Plan:
    """Return the next edges, as many as one pass should test."""
    kept, reached, changed = state.kept.copy(), state.reached, False
    n_prompts, n_tokens = state.inputs[0].shape[:2]
    edges: list[EdgeNumbers] = []
    tested: list[EdgeNumbers] = []
    widest = 1
    for source, destination in order:
        if changed and edges[-1][1] != destination:
            reached, changed = state.reach(kept), False
        tokens_read = state.reads(destination, reached)
        if tokens_read != NO_TOKEN:
            widest = max(widest, n_prompts * (n_tokens if tokens_read == ALL_TOKENS else 1))
            if tested and (len(tested) >= length or (len(tested) + 1) * widest > _TOKENS):
                break
            tested.append((source, destination))
        edges.append((source, destination))
        if judge.is_removed((source, destination)):
            kept[destination, source], changed = False, True
    removed = np.eye(len(tested), dtype=bool)
    for number, edge in enumerate(tested):
        removed[number, number:] |= judge.is_removed(edge)
    return _Plan(edges, tested, removed)
