"""A prior of one's own, without a change to the loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wirework.config import BridgeConfig, TrainConfig
from wirework.nn import Transformer
from wirework.signals import Interrupted
from wirework.training import train
from wirework.training.make_priors import make_priors
from wirework.training.metrics import read_metrics
from wirework.training.prior import Prior, StepLosses


class SmallNeurons(Prior):
    """Adds the mean magnitude of the neurons, times a factor that is learned too."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def wrap_model(self, transformer: Transformer) -> Transformer:
        self.transformer = transformer
        self.factor = nn.Parameter(torch.ones(()))
        return transformer

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"small.factor": self.factor}

    def loss(self, clean: Callable[[], StepLosses], tokens: Tensor, targets: Tensor) -> StepLosses:
        with self.transformer.recorded(["0.mlp.post_act"]) as recorded:
            losses = clean()
        size = recorded["0.mlp.post_act"].abs().mean() * self.factor**2
        return {**losses, "size": size, "total": losses["total"] + 10 * size}

    def learning_rate_factor(self, step: int) -> float:
        return 0.5

    def is_settled(self, step: int) -> bool:
        return step >= 8

    def after_step(self, step: int) -> dict[str, float]:
        if step == self.stop_after:
            raise Interrupted(15, "stopped by the test")
        return {"factor": self.factor.item()}


def test_a_prior_takes_part_in_all_that_the_loop_does(settings, whole):
    run = train(settings("own"), progress=False, priors=[SmallNeurons()])
    own, plain = (read_metrics(one.path / "metrics.jsonl") for one in (run, whole))
    steps = [line for line in own if line["kind"] == "train"]
    same = [line for line in plain if line["kind"] == "train"]
    assert [line["lr"] for line in steps] == pytest.approx([line["lr"] / 2 for line in same])
    assert steps[0]["loss"] == same[0]["loss"]
    assert steps[-1]["size"] < steps[0]["size"]
    assert steps[-1]["factor"] < 1
    assert {"l0_fraction", "size", "factor"} <= steps[-1].keys()


class Apart(SmallNeurons):
    """Its factor is trained apart, while the model stands still."""

    own_lr = 0.1

    def learning_rate_factor(self, step: int) -> float:
        return 0.0


def test_a_factor_of_0_stops_the_model_but_not_what_is_trained_apart(settings):
    config = settings("still", weight_sparsity=None, optimizer={"weight_decay": 0})
    run = train(config, progress=False, priors=[Apart()])
    steps = [line for line in read_metrics(run.path / "metrics.jsonl") if line["kind"] == "train"]
    assert {line["lr"] for line in steps} == {0.0}
    assert steps[-1]["factor"] < 0.9
    # The factor f is 1, and its part of the loss 10 f^2 times a mean that `size` logs.
    assert steps[0]["grad_rms_apart"] == pytest.approx(20 * steps[0]["size"], rel=1e-4)
    initial = Transformer(run.model.config, config.seed).state_dict()
    assert all(
        torch.equal(value, initial[name])
        for name, value in run.model.transformer.state_dict().items()
    )


def test_a_run_with_it_resumes_to_the_same_model(settings):
    whole = train(settings("own"), progress=False, priors=[SmallNeurons()])
    cut = settings("cut")
    with pytest.raises(Interrupted):
        train(cut, progress=False, priors=[SmallNeurons(stop_after=9)])
    again = train(cut, resume=True, progress=False, priors=[SmallNeurons()])
    for name, value in whole.model.transformer.state_dict().items():
        assert torch.equal(value, again.model.transformer.state_dict()[name]), name


def test_bridges_are_not_left_out_silently():
    with pytest.raises(AssertionError, match="bridges need their dense model"):
        make_priors(TrainConfig(bridges=BridgeConfig()))


def test_parameters_are_asked_for_once(settings):
    class Counted(Apart):
        asked = 0

        def parameters(self) -> dict[str, nn.Parameter]:
            self.asked += 1
            return super().parameters()

    prior = Counted()
    train(settings("once", steps=1), progress=False, priors=[prior])
    assert prior.asked == 1
