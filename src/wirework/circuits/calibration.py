"""Calibration: scale and shift of a circuit's logit difference (Gao et al. 2025, App. A.5).

Mean ablation changes the scale of the logits; the calibration undoes it. Losses are reported with
and without it. Shapes: N prompts; prompts 2i and 2i + 1 are pair i.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.config import LossReduction
from wirework.renamed_names import old_arguments
from wirework.tasks.task_loss import reduced

_STEPS = 16


class Calibration(NamedTuple):
    """Replaces the logit difference d (first minus second answer) by `scale` x d + `shift`."""

    scale: float
    shift: float


IDENTITY = Calibration(1.0, 0.0)
"""The calibration that changes nothing."""


@old_arguments(differences="logit_diffs")
def calibrated_loss(
    logit_diffs: Tensor, calibration: Calibration, reduction: LossReduction = "mean"
) -> float:
    """Return the task loss in nats after calibration.

    Args:
        logit_diffs: (N,) right minus wrong logit; the right answer is the pair's first in even
            rows and its second in odd rows.
        calibration: scale and shift to apply.
        reduction: over the two prompts of a pair.
    """
    scale, shift = torch.tensor(calibration, dtype=torch.float64)
    return reduced(float(_loss(logit_diffs.double(), scale, shift)), reduction)


@old_arguments(differences="logit_diffs")
def calibrate(logit_diffs: Tensor) -> Calibration:
    """Fit scale and shift with 16 LBFGS steps from (1, 0); return (1, 0) if the loss does not fall.

    Args:
        logit_diffs: (N,) as for `calibrated_loss`.

    Source: Gao et al. 2025, App. A.5.
    """
    logit_diffs = logit_diffs.detach().double()
    scale_and_shift = torch.tensor(
        [1.0, 0.0], dtype=torch.float64, device=logit_diffs.device, requires_grad=True
    )
    optimizer = torch.optim.LBFGS([scale_and_shift], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(logit_diffs, scale_and_shift[0], scale_and_shift[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = Calibration(*scale_and_shift.tolist())
    improves = calibrated_loss(logit_diffs, fitted) < calibrated_loss(logit_diffs, IDENTITY)
    return fitted if improves else IDENTITY


def _loss(logit_diffs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    sign = torch.ones_like(logit_diffs)
    sign[1::2] = -1  # the shift favours the first answer, which is the wrong one in odd rows
    return F.softplus(-(scale * logit_diffs + sign * shift)).mean()
