"""Scale and shift of the two answers' logit difference, fitted to a circuit (App. A.5).

Mean ablation changes the size of the logits; two numbers undo it, and the loss is reported with
and without them. Shapes: N rows, rows 2i and 2i + 1 the two prompts of pair i.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 16


class Calibration(NamedTuple):
    """First minus second answer's logit becomes `scale` times it plus `shift`."""

    scale: float
    shift: float


IDENTITY = Calibration(1.0, 0.0)
"""What changes nothing."""


def calibrated_loss(differences: Tensor, calibration: Calibration) -> float:
    """Return the task loss in nats after scale and shift.

    Args:
        differences: (N,) right minus wrong logit; the right answer is the pair's first in even
            rows and its second in odd rows.
        calibration: what to apply.
    """
    scale, shift = torch.tensor(calibration, dtype=torch.float64)
    return float(_loss(differences.double(), scale, shift))


def calibrate(differences: Tensor) -> Calibration:
    """Fit scale and shift by 16 LBFGS steps from (1, 0); what does not lower the loss is not used.

    Args:
        differences: (N,) as for `calibrated_loss`.

    Source: Gao et al. 2025, App. A.5.
    """
    logit_diffs = differences.detach().double()
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
