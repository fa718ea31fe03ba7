"""How well an explanation predicts a neuron on text that it was not made from.

Correlation of predicted and true activations (Bills et al. 2023), and detection: whether the
explanation tells excerpts in which the neuron is active from others (Paulo et al. 2024).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from wirework.circuits.scoring.auroc import auroc

CORRELATIONS = ("top_and_random", "top", "random")
DETECTIONS = ("balanced_accuracy", "precision", "recall", "f1", "auroc")


def correlation(true: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Return Pearson's correlation.

    Where the prediction is the same everywhere it is 0: such an explanation says nothing. Where
    the neuron itself does the same everywhere there is nothing to predict: None.
    """
    x, y = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if x.size == 0 or np.ptp(x) == 0:
        return None
    if np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def correlations(
    true: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]], n_top: int
) -> dict[str, float | None]:
    """Return the correlation over all excerpts end to end, over the top ones, over the random ones.

    Args:
        true: activations of each excerpt, the top ones first.
        predicted: the same for the explanation.
        n_top: how many excerpts are top ones.
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
    """Return how well a score per excerpt tells those in which the neuron is active.

    Args:
        active: of each excerpt.
        score: higher says active.
        threshold: from here on the explanation is taken to say active.

    Returns:
        Balanced accuracy, precision (0 if nothing is called active), recall, F1 and AUROC; None
        where all excerpts are of one kind.
    """
    truth, said = np.asarray(active, bool), np.asarray(score, np.float64) >= threshold
    if truth.all() or not truth.any():
        return None
    hits, alarms = int((truth & said).sum()), int((~truth & said).sum())
    recall = hits / int(truth.sum())
    rejected = 1 - alarms / int((~truth).sum())
    precision = hits / (hits + alarms) if hits else 0.0
    return {
        "balanced_accuracy": (recall + rejected) / 2,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "auroc": auroc(torch.tensor(score, dtype=torch.float64), torch.from_numpy(truth)),
    }


def averages(scores: Iterable[dict[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Return mean, standard error and count of each score over neurons.

    A score that a neuron does not have (None) is left out of its mean and count.

    Args:
        scores: of each neuron, as its file holds them.
    """
    rows = [{**one["correlation"], **(one["detection"] or {})} for one in scores]
    columns = {
        name: [row[name] for row in rows if row.get(name) is not None]
        for name in (*CORRELATIONS, *DETECTIONS)
    }
    return {name: _average(values) for name, values in columns.items()}


def _average(values: Sequence[float]) -> dict[str, float | int | None]:
    n = len(values)
    if not n:
        return {"mean": None, "standard_error": None, "n": 0}
    error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else None
    return {"mean": float(np.mean(values)), "standard_error": error, "n": n}
