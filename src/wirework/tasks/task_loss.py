"""The task loss: cross-entropy of the right answer of two, over the two prompts of each pair.

Everything that reports a task loss or compares one with a target goes through this file. The loss
of a pair is the mean of its two prompts' losses or, as in the authors' released code, their sum
(`LossReduction`); over pairs it is a mean. So a sum is twice a mean, and chance is 2 ln 2 then.
Shapes: P pairs; prompts 2i and 2i + 1 are pair i. Source: Gao et al. 2025, Table 1, sec. 2.2.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

from wirework.config import LossReduction
from wirework.renamed_names import old_arguments

_Loss = TypeVar("_Loss", float, Tensor)

_PROMPTS = {"mean": 1, "sum": 2}
"""Factor from the mean over a pair's two prompts to the loss of the pair."""


@old_arguments(gaps="logit_diffs")
def pair_losses(logit_diffs: Tensor) -> Tensor:
    """Return the cross-entropy in nats of the right answer of two, for each logit difference.

    Args:
        logit_diffs: logit differences (right minus wrong), any shape.

    Source: Gao et al. 2025, Table 1.
    """
    return torch.nn.functional.softplus(-logit_diffs)


def task_loss(logit_diffs: Tensor, reduction: LossReduction = "mean") -> Tensor:
    """Return the task loss in nats, a mean over pairs.

    Args:
        logit_diffs: (..., 2P) right minus wrong logit; any number of prompts is taken as their
            mean, times two for a sum.
        reduction: over the two prompts of a pair.

    Returns:
        (...) float64.
    """
    return reduced(pair_losses(logit_diffs.double()).mean(-1), reduction)


def reduced(mean_loss: _Loss, reduction: LossReduction) -> _Loss:
    """Return a task loss, or a difference of two, of which the mean over prompts is known.

    Args:
        mean_loss: mean over prompts, nats.
        reduction: over the two prompts of a pair.
    """
    return mean_loss * _PROMPTS[reduction]


def largest_sum(target: float, n_prompts: int, reduction: LossReduction) -> float:
    """Return the sum over prompts, in nats, at which the task loss is at the target.

    Args:
        target: task loss in nats.
        n_prompts: number of prompts, two for each pair.
        reduction: over the two prompts of a pair.
    """
    return target * n_prompts / _PROMPTS[reduction]


def chance_loss(reduction: LossReduction) -> float:
    """Return the task loss of a guess in nats: ln 2, or 2 ln 2 for a sum."""
    return reduced(math.log(2), reduction)
