"""The task loss by numbers worked by hand: logit differences of ln 3 and so on."""

import math

import pytest
import torch

from wirework.config import PruneConfig
from wirework.tasks.task_loss import chance_loss, largest_sum, reduced, task_loss

# softplus(-d): ln(4/3) for d = ln 3, ln 4 for d = -ln 3, ln 2 for d = 0, ln(8/7) for d = ln 7.
DIFFS = torch.tensor([[math.log(3), -math.log(3), 0.0, math.log(7)], [0.0, 0.0, 0.0, 0.0]])
PAIRS = [(math.log(4 / 3), math.log(4)), (math.log(2), math.log(8 / 7))]


def test_a_mean_or_a_sum_over_a_pair_is_then_a_mean_over_pairs():
    means = [(first + second) / 2 for first, second in PAIRS]
    sums = [first + second for first, second in PAIRS]
    assert task_loss(DIFFS).tolist() == pytest.approx([sum(means) / 2, math.log(2)])
    assert task_loss(DIFFS, "sum").tolist() == pytest.approx([sum(sums) / 2, 2 * math.log(2)])
    assert task_loss(DIFFS).dtype == torch.float64


def test_chance_and_limits_follow():
    assert chance_loss("mean") == pytest.approx(0.6931, abs=1e-4)
    assert chance_loss("sum") == pytest.approx(1.3863, abs=1e-4)
    # Four prompts at a task loss of 0.15 sum to 0.6 nats, or 0.3 if 0.15 is the sum of a pair.
    assert largest_sum(0.15, 4, "mean") == pytest.approx(0.6)
    assert largest_sum(0.15, 4, "sum") == pytest.approx(0.3)
    assert reduced(0.01, "sum") == pytest.approx(0.02)


def test_records_of_means_are_those_of_earlier_versions():
    assert "loss_reduction" not in PruneConfig().recorded()
    recorded = PruneConfig(loss_reduction="sum").recorded()
    assert recorded["loss_reduction"] == "sum"
    assert PruneConfig.of(recorded).loss_reduction == "sum"
    with pytest.raises(ValueError, match="loss_reduction"):
        PruneConfig(loss_reduction="total")
