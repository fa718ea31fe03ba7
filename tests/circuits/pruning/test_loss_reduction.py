"""A search by the sum over a pair's prompts is one by the mean at half the target."""

import math
from dataclasses import replace

import pytest
import torch

from wirework.circuits import Ablation, NodeCircuit, learn_masks, prune, validate
from wirework.circuits.pruning.discretise import clean_up
from wirework.circuits.pruning.hyperparameter_search import centre
from wirework.circuits.validation.bars import loss_limit
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs

BY_SCORE = PruneConfig(finder="attribution", eval_pairs=24, target_loss=0.15)
"""No mask is trained, so that only the comparison with the target differs."""


@pytest.fixture(scope="module")
def summed(wired: Model, task: Task, corpus) -> NodeCircuit:
    config = BY_SCORE.model_copy(update={"loss_reduction": "sum"})
    return prune(wired, task, config, data=corpus, progress=False)


@pytest.fixture(scope="module")
def at_half(wired: Model, task: Task, corpus) -> NodeCircuit:
    return prune(wired, task, BY_SCORE, target_loss=0.075, data=corpus, progress=False)


def test_the_circuit_is_that_of_half_the_target_and_its_losses_are_twice(
    summed: NodeCircuit, at_half: NodeCircuit
) -> None:
    assert (summed.nodes, summed.edges) == (at_half.nodes, at_half.edges)
    assert (summed.loss_reduction, at_half.loss_reduction) == ("sum", "mean")
    twice = {name: 2 * loss for name, loss in at_half.losses.model_dump(exclude_none=True).items()}
    assert summed.losses.model_dump(exclude_none=True) == pytest.approx(twice)
    assert summed.losses.chance == pytest.approx(2 * math.log(2))
    ours, half = summed.paper_size, at_half.paper_size
    assert ours is not None
    assert half is not None
    assert (ours.n_nodes, ours.n_edges) == (half.n_nodes, half.n_edges)
    assert ours.held_out_loss_calibrated == pytest.approx(2 * half.held_out_loss_calibrated)


def test_it_is_recorded_and_named(
    summed: NodeCircuit, wired: Model, task: Task, at_half: NodeCircuit, tmp_path
) -> None:
    again = NodeCircuit.load(summed.save(tmp_path / "circuit"))
    assert again.loss_reduction == again.summary()["loss_reduction"] == "sum"
    assert again.search_config.loss_reduction == "sum"
    assert "nats, sum over both prompts" in repr(again)
    assert again.evaluate(wired, task) == pytest.approx(2 * at_half.evaluate(wired, task))


def test_the_report_and_the_verdict_are_in_sums_too(
    summed: NodeCircuit, at_half: NodeCircuit, wired: Model, task: Task, corpus
) -> None:
    report, half = (
        validate(circuit, wired, task, data=corpus, short=True, progress=False)
        for circuit in (summed, at_half)
    )
    assert (report.loss_reduction, half.loss_reduction) == ("sum", "mean")
    assert report.held_out.circuit == pytest.approx(2 * half.held_out.circuit)
    assert report.held_out.circuit_error == pytest.approx(2 * half.held_out.circuit_error)
    assert report.held_out.chance == pytest.approx(2 * math.log(2))
    ours, others = report.to_dict(), half.to_dict()
    for part, name in (("interchange", "other"), ("resampled", "resample"), ("rephrased", "model")):
        assert ours[part][name] == pytest.approx(2 * others[part][name])
    lowest = [one["controls"]["random circuits"]["lowest"] for one in (ours, others)]
    assert lowest[0] == pytest.approx(2 * lowest[1])
    assert report.faithful == half.faithful
    limit = loss_limit(0.15, 2 * math.log(2))
    needed = f"model's loss is {report.held_out.without_circuit:.3f}, at least {limit:.3f}"
    assert needed in " ".join(report.reasons)


def test_a_target_between_the_two_chances_is_refused_for_means_only(
    wired: Model, task: Task, corpus
) -> None:
    with pytest.raises(InputError, match=r"target_loss .* 1 asks for nothing.* 0\.693 nats"):
        prune(wired, task, BY_SCORE, target_loss=1.0, data=corpus, progress=False)
    with pytest.raises(InputError, match=r"target_loss .* 1\.4 asks for nothing.* 1\.386 nats"):
        prune(wired, task, target_loss=1.4, loss_reduction="sum", data=corpus, progress=False)


def test_limits_of_bisection_and_removal_are_of_the_same_loss(
    ablation: Ablation, rows: TokenizedPairs
) -> None:
    summed, gates = replace(ablation, loss_reduction="sum"), torch.ones(ablation.size)
    loss = float(summed.losses(gates[None], rows)[0])
    assert loss == pytest.approx(2 * float(ablation.losses(gates[None], rows)[0]))
    assert summed.within(gates, rows, loss + 1e-6)
    assert not summed.within(gates, rows, loss - 1e-6)
    few = gates.clone()
    few[200:] = 0
    target = float(summed.losses(few[None], rows)[0]) + 0.01
    cleaned = clean_up(summed, few, rows, target)
    assert torch.equal(cleaned, clean_up(ablation, few, rows, target / 2))
    assert float(summed.losses(cleaned[None], rows)[0]) <= target


def test_masks_are_trained_on_the_same_loss(ablation: Ablation, rows: TokenizedPairs) -> None:
    """Twice the loss and twice `k_coef` is twice the gradient, which AdamW takes as the same."""
    summed, settings = replace(ablation, loss_reduction="sum"), centre(PruneConfig(k_coef=1e-2))
    options = {"steps": 6, "batch_pairs": 8, "seeds": [0]}
    by_mean = learn_masks(ablation, rows, [settings], **options)
    doubled = replace(settings, k_coef=2 * settings.k_coef)
    by_sum = learn_masks(summed, rows, [doubled], **options)
    # The eps of AdamW is not doubled, so the two differ by a little more than rounding.
    torch.testing.assert_close(by_sum, by_mean, atol=1e-4, rtol=1e-3)
    assert not torch.equal(learn_masks(summed, rows, [settings], **options), by_mean)
