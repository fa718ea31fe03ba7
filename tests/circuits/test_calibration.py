import math

import pytest
import torch

from wirework.circuits import Calibration, calibrate, calibrated_loss


def test_the_loss_by_hand() -> None:
    logit_diffs = torch.tensor([math.log(3), 0.0])
    assert calibrated_loss(logit_diffs, Calibration(1, 0)) == pytest.approx(
        (math.log(4 / 3) + math.log(2)) / 2
    )
    # The shift is towards the first answer: right in row 0, wrong in row 1.
    assert calibrated_loss(torch.zeros(2), Calibration(1, math.log(3))) == pytest.approx(
        (math.log(4 / 3) + math.log(4)) / 2
    )


def test_no_point_of_a_fine_grid_is_better() -> None:
    generator = torch.Generator().manual_seed(1)
    logit_diffs = 0.4 * torch.randn(200, generator=generator) + 0.3
    logit_diffs[::2] += 0.8
    logit_diffs[1::2] -= 0.8  # the circuit leans to the first answer
    found = calibrate(logit_diffs)
    grid = min(
        calibrated_loss(logit_diffs, Calibration(scale, shift))
        for scale in torch.linspace(0, 6, 61).tolist()
        for shift in torch.linspace(-6, 6, 121).tolist()
    )
    assert calibrated_loss(logit_diffs, found) <= grid + 1e-4
    assert calibrated_loss(logit_diffs, found) < calibrated_loss(logit_diffs, Calibration(1, 0))
    assert found.shift < 0


def test_separable_rows_stay_finite() -> None:
    found = calibrate(torch.full((8,), 5.0))
    assert math.isfinite(found.scale)
    assert calibrated_loss(torch.full((8,), 5.0), found) <= math.log1p(math.exp(-5))
