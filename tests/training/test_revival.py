"""Revival: which neurons get new weights, when, and that a run with it resumes."""

import pytest
import torch

from wirework.config import ModelConfig, OptimizerConfig, RevivalConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.signals import Interrupted
from wirework.training import train
from wirework.training.metrics import read_metrics
from wirework.training.optimizer import make_optimizer
from wirework.training.prior import Prior, losses_of
from wirework.training.revival import Revival

MODEL = ModelConfig(
    vocab_size=16, n_ctx=8, n_layer=2, d_model=16, d_head=8, activation="relu", act_fraction=1
)
TOKENS = torch.arange(8)[None]
DEAD = [3, 60]


class Trained:
    """A transformer with two dead neurons in layer 1, after a step with moments."""

    def __init__(self, steps: int = 10, **changes: float) -> None:
        config = RevivalConfig(**{"silent_steps": 1, "until": 1.0, **changes})
        self.prior = Revival(config, steps)
        self.transformer = self.prior.wrap_model(Transformer(MODEL))
        self.mlp = self.transformer.blocks[1].mlp
        with torch.no_grad():
            for block in self.transformer.blocks:
                block.mlp.up.bias.fill_(1.0)  # every neuron is active at every token
            self.mlp.up.bias[DEAD] = -100.0
        self.optimizer = make_optimizer(self.transformer, OptimizerConfig())
        self.prior.prepare(self.transformer, self.optimizer)
        self.step(0)

    def step(self, step: int) -> dict[str, torch.Tensor]:
        losses = losses_of(self.transformer, [self.prior], TOKENS, TOKENS)
        losses["total"].backward()
        self.optimizer.step()
        self.before = {n: p.detach().clone() for n, p in self.transformer.named_parameters()}
        self.prior.after_step(step)
        return losses

    def changed(self) -> dict[str, torch.Tensor]:
        """Return, by name, which entries the prior changed in the last step."""
        named = self.transformer.named_parameters()
        masks = {name: parameter != self.before[name] for name, parameter in named}
        return {name: mask for name, mask in masks.items() if mask.any()}


def test_only_the_weights_of_silent_neurons_are_drawn_anew():
    torch.manual_seed(0)
    changed = Trained().changed()
    assert sorted(changed) == [f"blocks.1.mlp.{n}" for n in ("down.weight", "up.bias", "up.weight")]
    assert changed["blocks.1.mlp.up.weight"].all(1).nonzero().flatten().tolist() == DEAD
    assert changed["blocks.1.mlp.up.weight"].any(1).sum() == 2
    assert changed["blocks.1.mlp.down.weight"].all(0).nonzero().flatten().tolist() == DEAD
    assert changed["blocks.1.mlp.down.weight"].any(0).sum() == 2
    assert changed["blocks.1.mlp.up.bias"].nonzero().flatten().tolist() == DEAD


def test_the_new_weights_have_the_size_of_initial_ones_times_the_scale():
    torch.manual_seed(0)
    trained = Trained(scale=3.0)
    # 16 entries each; the standard deviation of a sample lies within a factor of 2.
    assert 0.03 < trained.mlp.up.weight[3].std() < 0.12
    assert 0.015 < trained.mlp.down.weight[:, 3].std() < 0.06
    assert trained.mlp.up.bias[DEAD].tolist() == [0, 0]


def test_their_moments_are_cleared_and_those_of_others_kept():
    trained = Trained()
    moments = trained.optimizer.state[trained.mlp.down.weight]["exp_avg_sq"]
    other = [n for n in range(MODEL.d_mlp) if n not in DEAD]
    assert not moments[:, DEAD].any()
    assert moments[:, other].any(0).all()


def test_revived_neurons_are_counted():
    trained = Trained()
    assert trained.step(1)["revived_neurons"] == 2


def test_a_neuron_that_was_active_once_since_the_last_check_is_left_alone():
    trained = Trained(silent_steps=2)
    assert trained.changed() == {}
    trained.step(1)
    assert trained.mlp.up.bias[DEAD].tolist() == [0, 0]  # silent in both steps
    with torch.no_grad():
        trained.mlp.up.bias[5] = -100.0
        trained.mlp.up.bias[DEAD] = 1.0
    trained.step(2)
    with torch.no_grad():
        trained.mlp.up.bias[5] = 1.0
    trained.step(3)
    assert trained.changed() == {}


def test_nothing_is_revived_after_the_share_of_the_steps():
    trained = Trained(steps=10, silent_steps=5, until=0.5)
    for step in range(1, 5):
        trained.step(step)
    assert trained.changed() != {}
    with torch.no_grad():
        trained.mlp.up.bias[DEAD] = -100.0
    for step in range(5, 10):
        trained.step(step)
    assert trained.changed() == {}


class Stopper(Prior):
    """Ends the run after a step."""

    def after_step(self, step: int) -> dict[str, float]:
        if step == 9:
            raise Interrupted(15, "stopped by the test")
        return {}


REVIVED = {"silent_steps": 3, "scale": 5.0, "until": 1.0}


@pytest.mark.parametrize("gating", [None, {"k_attention": 4, "k_neurons": 4}])
def test_a_stopped_run_resumes_to_the_same_model_and_count(settings, gating):
    # One batch of two sequences and 1/16 of the neurons: many are silent.
    changes = {"revival": REVIVED, "gating": gating, "model": {"act_fraction": 1 / 16}}
    whole = train(settings("whole", **changes), progress=False)
    cut = settings("cut", **changes)
    with pytest.raises(Interrupted):
        train(cut, progress=False, priors=[Stopper()])
    again = train(cut, resume=True, progress=False)
    for name, value in whole.model.transformer.state_dict().items():
        assert torch.equal(value, again.model.transformer.state_dict()[name]), name
    counts = [
        [line["revived_neurons"] for line in read_metrics(run.path / "metrics.jsonl")
         if line["kind"] == "train"]
        for run in (whole, again)
    ]  # fmt: skip
    assert counts[0] == counts[1]
    assert counts[0][3] > 0
    assert counts[0][3] == counts[0][5]


def test_a_run_without_it_is_the_same_as_before(settings, whole):
    quiet = train(settings("quiet", revival={"silent_steps": 12, "until": 0.5}), progress=False)
    for name, value in whole.model.transformer.state_dict().items():
        assert torch.equal(value, quiet.model.transformer.state_dict()[name]), name


def test_live_gradients_are_refused(settings):
    with pytest.raises(InputError, match="live does not work with revival"):
        settings("quiet", weight_sparsity={"gradient": "live"}, revival={})
