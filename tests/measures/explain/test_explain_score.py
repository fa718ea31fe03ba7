"""Scores worked by hand, and against numpy and a plain count."""

import numpy as np
import pytest

from wirework.measures.explain.record import levels
from wirework.measures.explain.score import (
    MeanScore,
    averages,
    correlation,
    correlations,
    detection,
)


def test_correlation_is_pearsons() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=50), generator.normal(size=50)
    assert correlation(list(x), list(y)) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert correlation([0, 1, 2], [5, 7, 9]) == pytest.approx(1)
    assert correlation([0, 1, 2], [0, -1, -2]) == pytest.approx(-1)
    assert correlation([0.0, 3e-9, 1e-9], [0.0, 3.0, 1.0]) == pytest.approx(1)


def test_a_constant_prediction_scores_nothing_and_a_constant_neuron_has_no_score() -> None:
    assert correlation([0, 1, 2], [4, 4, 4]) == 0
    assert correlation([4, 4, 4], [0, 1, 2]) is None
    assert correlation([], []) is None


def test_excerpts_are_joined_not_averaged() -> None:
    true, said = [[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    found = correlations(true, said, 2)
    assert found["top"] == pytest.approx(1)
    assert found["random"] is None
    together = np.corrcoef([0, 1, 0, 2, 0, 0], [0, 1, 0, 2, 0, 3])[0, 1]
    assert found["top_and_random"] == pytest.approx(together)


def test_detection_by_hand() -> None:
    """Active: three; called active: the first two of them and one other of four."""
    active = [True, True, True, False, False, False, False]
    found = detection(active, [5, 2, 0, 3, 0, 0, 1.9], 2)
    assert found == {
        "balanced_accuracy": pytest.approx((2 / 3 + 3 / 4) / 2),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "auroc": pytest.approx((4 + 3 + 2 * 0.5) / 12),
    }
    nothing = detection(active, [0.0] * 7, 1)
    assert nothing == {
        "balanced_accuracy": 0.5, "precision": 0, "recall": 0, "f1": 0, "auroc": 0.5
    }  # fmt: skip
    assert detection([True, True], [1, 0], 1) is None
    assert detection([False], [1], 1) is None


def test_averages_leave_out_what_is_not_there() -> None:
    def one(value, auroc=None):
        made = None if auroc is None else dict.fromkeys(
            ("balanced_accuracy", "precision", "recall", "f1"), 1.0) | {"auroc": auroc}  # fmt: skip
        return {
            "correlation": {"top_and_random": value, "top": 1.0, "random": None},
            "detection": made,
        }

    found = averages([one(0.1), one(0.3, 0.75), one(None)])
    assert found["top_and_random"] == MeanScore(pytest.approx(0.2), pytest.approx(0.1), 2)
    assert found["top"] == MeanScore(1.0, 0.0, 3)
    assert found["random"] == MeanScore(None, None, 0)
    assert found["auroc"] == MeanScore(0.75, None, 1)
    assert found["auroc"].to_dict() == {"mean": 0.75, "standard_error": None, "n": 1}


def test_levels_are_rounded_down_between_0_and_10() -> None:
    assert levels([-1.0, 0.0, 0.19, 0.2, 1.99, 2.0, 5.0], 2.0) == [0, 0, 0, 1, 9, 10, 10]
    assert levels([1.0], 0.0) == [0]
