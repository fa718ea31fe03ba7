"""Scores of an explanation on held-out text.

Two kinds: the correlation of predicted and true activations (Bills et al. 2023), and detection, the
accuracy of predicting whether the neuron is active in an excerpt (Paulo et al. 2024).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wirework.circuits.scoring.auroc import auroc
from wirework.summaries import Report

CORRELATIONS = ("top_and_random", "top", "random")
DETECTIONS = ("balanced_accuracy", "precision", "recall", "f1", "auroc")


def correlation(true: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Return Pearson's correlation.

    A constant prediction gives 0: such an explanation says nothing. A constant activation gives
    None: there is nothing to predict.
    """
    from scipy.stats import pearsonr  # here: scipy.stats takes half a second to import

    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if x.size == 0 or np.ptp(x) == 0:
        return None
    if np.ptp(y) == 0:
        return 0.0
    return float(pearsonr(x, y).statistic)


def correlations(
    true: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]], n_top: int
) -> dict[str, float | None]:
    """Return the correlation over all excerpts end to end, over the top and over the random ones.

    Args:
        true: activations of each excerpt, the top ones first.
        predicted: the same for the explanation.
        n_top: number of top excerpts.
    """
    parts = {"top_and_random": slice(None), "top": slice(n_top), "random": slice(n_top, None)}
    return {
        name: correlation(_joined(true[part]), _joined(predicted[part]))
        for name, part in parts.items()
    }


def _joined(excerpts: Sequence[Sequence[float]]) -> list[float]:
    return [value for excerpt in excerpts for value in excerpt]


def detection(
    active: Sequence[bool], score: Sequence[float], threshold: float
) -> dict[str, float] | None:
    """Return how well a score per excerpt separates active from inactive excerpts.

    Args:
        active: whether the neuron is active, for each excerpt.
        score: for each excerpt; higher means active.
        threshold: scores from here on predict active.

    Returns:
        Balanced accuracy, precision (0 if nothing is predicted active), recall, F1 and AUROC; None
        if the neuron is active in all excerpts or in none.
    """
    truth, predicted = np.asarray(active, bool), np.asarray(score, np.float64) >= threshold
    if truth.all() or not truth.any():
        return None
    hits, false_alarms = int((truth & predicted).sum()), int((~truth & predicted).sum())
    recall = hits / int(truth.sum())
    specificity = 1 - false_alarms / int((~truth).sum())
    precision = hits / (hits + false_alarms) if hits else 0.0
    return {
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "auroc": auroc(torch.tensor(score, dtype=torch.float64), torch.from_numpy(truth)),
    }


@dataclass(frozen=True, repr=False)
class MeanScore(Report):
    """Mean of a score over neurons."""

    mean: float | None
    """None if no neuron has the score."""
    standard_error: float | None
    """None for fewer than two neurons."""
    n: int
    """Neurons that have the score."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeanScore":
        """Return the mean of values, with its standard error."""
        from scipy.stats import sem  # here: scipy.stats takes half a second to import

        if not values:
            return cls(None, None, 0)
        error = float(sem(values)) if len(values) > 1 else None
        return cls(float(np.mean(values)), error, len(values))


def averages(scores: Iterable[dict[str, Any]]) -> dict[str, MeanScore]:
    """Return mean, standard error and count of each score over neurons.

    A missing score (None) is left out of mean and count.

    Args:
        scores: the scores of each neuron, as in its file.
    """
    rows = [{**neuron["correlation"], **(neuron["detection"] or {})} for neuron in scores]
    columns = {
        name: [row[name] for row in rows if row.get(name) is not None]
        for name in (*CORRELATIONS, *DETECTIONS)
    }
    return {name: MeanScore.of(values) for name, values in columns.items()}
