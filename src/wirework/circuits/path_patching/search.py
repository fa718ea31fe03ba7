"""ACDC: go through the edges in order and remove each whose removal costs less than tau.

Exactly what testing one edge at a time finds, faster: what the next decisions will be is guessed,
each trial removes one edge from the run as it is if the guesses before it are right, and all trials
up to and including the first whose outcome was not guessed stand. A wrong guess is put right by
what the same pass measured for the edges after it.
Source: Conmy et al. 2023 (arXiv 2304.14997), algorithm 1.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from wirework.circuits.path_patching.state import DEAD, WHOLE, Bools, Edge, PatchedState, Trials
from wirework.circuits.path_patching.trials import tried

CLOSE = 1e-6
"""A growth so near to tau, at least, is measured in float64."""

_SAFETY = 8
"""Times the largest difference seen between float32 and float64 that counts as close too."""

_TOKENS = 6144
"""Tokens of all trials in one pass: fewer cost more calls, more are no faster."""

_FIRST, _LEAST = 16, 4
"""Trials of the first pass, and of the shortest."""


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    kept: list[Edge]
    """In the order in which they were tested."""
    growth: dict[Edge, float]
    """Of every edge, by how much the metric grew when it was tried without."""
    metric: float
    """Of the run with all other edges removed."""


def search(
    state: PatchedState,
    order: Iterable[Edge],
    tau: float,
    *,
    guess: Mapping[Edge, float] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> SearchResult:
    """Decide every edge.

    Args:
        state: a run in float64 with nothing removed; it ends as the run of the edges kept.
        order: all edges.
        tau: an edge goes when the metric grows by less.
        guess: growth of edges where there is an idea of it, as of a search with another tau. It
            makes a search faster or slower and never changes what it finds.
        on_progress: gets the number of edges decided so far, now and then.
    """
    order = list(order)
    judge = _Judge(state, tau, dict(guess or {}))
    growth: dict[Edge, float] = {}
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
    """The next edges, and those among them that need a trial, one each."""

    edges: list[Edge]
    tested: list[Edge]
    """On the others nothing depends by then."""
    removed: Bools
    """(tested edges, trials), which of them a trial does without."""


class _Judge:
    """Tells what a pass decides: in float32 where that is clear, in float64 where it is close.

    The current run is kept in float64, its twin in float32 is rounded from it. The trial that
    becomes the current run (the first, if none does) is always measured in both, so that how far
    they are apart is known.
    There is no twin where rounding may count for more: AbsTopK may keep other entries, and with
    zero ablation a norm may divide by next to nothing.
    """

    def __init__(self, exact: PatchedState, tau: float, guessed: dict[Edge, float]) -> None:
        self.exact = exact
        config = exact.patched.transformer.config
        smooth = all(config.site_k(kind) is None for kind in config.act_sites)
        harmless = smooth and exact.patched.ablation != "zero"
        self.quick = exact.in_float32() if harmless else None
        self.tau = tau
        self.margin = CLOSE
        self.guessed = guessed

    def goes(self, edge: Edge) -> bool:
        """Guess whether an edge will be removed."""
        return self.guessed.get(edge, 0.0) < self.tau

    def decide_(self, plan: _Plan) -> dict[Edge, float]:
        """Test a plan's edges; return the growth of those that stand decided, in order.

        The current run becomes that without those that go; guesses of the others get better.
        """
        measured = _Measured(tried(self.quick or self.exact, plan.tested, plan.removed))
        verdict = self._walk(plan, measured)
        while self.quick is not None and (close := verdict.close - measured.exact.keys()):
            trials = tried(self.exact, plan.tested, plan.removed[:, sorted(close)])
            apart = measured.put(sorted(close), trials)
            self.margin = max(self.margin, _SAFETY * apart)
            verdict = self._walk(plan, measured)
        self.guessed |= verdict.later
        taken, column = measured.of(verdict.chosen)
        gone = [edge for edge, growth in verdict.decided.items() if growth < self.tau]
        self.exact.take_(taken, column, gone)
        if self.quick is not None:
            self.quick.follow_(self.exact, taken)
        return verdict.decided

    def _walk(self, plan: _Plan, measured: "_Measured") -> "_Verdict":
        """Go through a plan's edges as if they were tested one by one."""
        numbers = {edge: number for number, edge in enumerate(plan.tested)}
        verdict = _Verdict()
        before, last = self.exact.metric, -1
        right = True
        for edge in plan.edges:
            number = numbers.get(edge, last)
            metric = before if number == last else measured.metric[number]
            growth = metric - before
            if not right:
                verdict.later[edge] = growth
            else:
                verdict.decided[edge] = growth
                if growth < self.tau:
                    verdict.chosen = number
                if number != last and abs(growth - self.tau) <= self.margin:
                    verdict.close |= {number, last} - {-1}
                right = (growth < self.tau) == self.goes(edge)
            if self.goes(edge):
                before, last = metric, number
        if plan.tested:
            verdict.close.add(max(verdict.chosen, 0))
        return verdict


@dataclass
class _Verdict:
    """What a pass decides."""

    decided: dict[Edge, float] = field(default_factory=dict)
    """Growth of the edges up to the first wrong guess."""
    later: dict[Edge, float] = field(default_factory=dict)
    """Growth of those after it, measured in a run that is not the right one."""
    chosen: int = -1
    """The trial that is the run without all that go; -1 for the current one."""
    close: set[int] = field(default_factory=set)
    """Trials that must be measured in float64."""


class _Measured:
    """The trials of a plan, first all in one dtype, then some of them in float64."""

    def __init__(self, trials: Trials) -> None:
        self.metric = list(trials.metric)
        self.first = trials
        self.exact: dict[int, tuple[Trials, int]] = {}

    def put(self, numbers: list[int], trials: Trials) -> float:
        """Replace trials by the same in float64; return by how much they were apart at most."""
        apart = 0.0
        for column, number in enumerate(numbers):
            self.exact[number] = (trials, column)
            apart = max(apart, abs(self.metric[number] - trials.metric[column]))
            self.metric[number] = trials.metric[column]
        return apart

    def of(self, number: int) -> tuple[Trials | None, int]:
        """Return the pass and the column that a trial stands in."""
        return (None, 0) if number < 0 else self.exact.get(number, (self.first, number))


def _plan(state: PatchedState, order: list[Edge], length: int, judge: _Judge) -> _Plan:
    """Take as many of the next edges as one pass should carry."""
    kept, reached, changed = state.kept.copy(), state.reached, False
    n_prompts, n_tokens = state.inputs[0].shape[:2]
    edges: list[Edge] = []
    tested: list[Edge] = []
    widest = 1
    for source, destination in order:
        if changed and edges[-1][1] != destination:
            reached, changed = state.reach(kept), False
        at = state.reads(destination, reached)
        if at != DEAD:
            widest = max(widest, n_prompts * (n_tokens if at == WHOLE else 1))
            if tested and (len(tested) >= length or (len(tested) + 1) * widest > _TOKENS):
                break
            tested.append((source, destination))
        edges.append((source, destination))
        if judge.goes((source, destination)):
            kept[destination, source], changed = False, True
    removed = np.eye(len(tested), dtype=bool)
    for number, edge in enumerate(tested):
        removed[number, number:] |= judge.goes(edge)
    return _Plan(edges, tested, removed)
