from collections.abc import Iterator
from itertools import pairwise

import pytest

from wirework.circuits.pruning.search_progress import Pace, Tries
from wirework.config import PruneConfig
from wirework.console import TimeLeft

ROUNDS = ((61.0, (4, 2, 1)), (94.7, (4, 3, 2)))
"""Seconds of each round of a search with the default settings, and the trials between rungs."""
CLEAN_UPS = (38.9, 36.7, 24.0, 19.7)
MERGES = (10.2, 20.0, 11.6)
EDGES = 34.2


def search(config: PruneConfig) -> Iterator[tuple[float, float]]:
    """The moments of a search, as measured, at which it says how far it is, and what it says."""
    pace, now = Pace.of(config), 0.0
    for number, (seconds, trials) in enumerate(ROUNDS):
        steps = [trials[0]] * 75 + [trials[1]] * 75 + [trials[2]] * 150
        for step, cost in enumerate(steps, 1):
            now += seconds * cost / sum(steps)
            yield now, pace.in_trials(4 * number, 4, step)
    now += 17  # scores and bisection
    for done, seconds in enumerate(CLEAN_UPS, 1):
        now += seconds
        yield now, pace.in_clean_ups(done, 0, len(CLEAN_UPS))
    for done, seconds in enumerate(MERGES, 1):
        now += seconds
        yield now, pace.in_clean_ups(len(CLEAN_UPS), done, len(CLEAN_UPS))
    yield now + EDGES, 1.0


def test_the_share_of_a_search_rises_to_that_of_its_edges():
    shares = [share for _, share in search(PruneConfig())]
    assert all(before < after for before, after in pairwise(shares))
    assert shares[0] < 0.01
    assert 0.8 < shares[-2] < 0.95


def test_a_trial_costs_half_after_each_rung():
    config = PruneConfig(
        trials=1, parallel=1, steps=100, stop_at=(0.5,), finalists=1, extra_rankings=()
    )
    pace = Pace.of(config)
    assert pace.in_trials(0, 1, 50) == pytest.approx(2 * (pace.trials - pace.in_trials(0, 1, 50)))
    assert pace.in_trials(0, 1, 100) == pytest.approx(pace.trials)
    assert pace.in_clean_ups(1, 0, 1) == pytest.approx(pace.trials + pace.nodes)


def test_what_a_search_leaves_out_has_no_share():
    bare = PruneConfig(finder="attribution", clean_up=False, prune_edges=False)
    assert Pace.of(bare).trials == 0
    assert Pace.of(PruneConfig(prune_edges=False)).in_clean_ups(5, 4, 5) > 0.99


def test_the_time_left_of_a_search_does_not_jump():
    clock = [0.0]
    moments = list(search(PruneConfig()))
    left, share, told, end = TimeLeft(clock=lambda: clock[0]), 0.0, [], moments[-1][0]
    for now in range(20, int(end), 20):
        clock[0] = float(now)
        share = max((one for when, one in moments if when <= now), default=0.0)
        told.append((left.at(share), end - now))
    for (before, _), (after, true) in pairwise(told):
        assert before is not None
        assert after is not None
        if true > 60:
            assert 0.7 < after / max(before - 20, 1) < 1.4
            assert 0.5 < after / true < 2


def test_a_greedy_removal_says_how_far_it_is_at_every_try():
    shares: list[float] = []
    tries = Tries(shares.append)
    for _ in range(400):
        tries.count()
    assert all(before < after < 1 for before, after in pairwise(shares))
    assert shares[169] == pytest.approx(0.82, abs=0.01)  # 170 tries are usual


def test_the_removal_of_edges_takes_the_rest_of_a_search():
    pace = Pace.of(PruneConfig())
    assert pace.in_edges(0) == pace.in_clean_ups(5, 4, 5)
    assert pace.in_edges(1) == 1
