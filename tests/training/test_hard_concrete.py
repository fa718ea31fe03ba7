"""Smooth L0: the gates by hand, the loss, and whole runs with it."""

import math

import pytest
import torch
from present import present

from wirework.config import HardConcreteConfig, ModelConfig
from wirework.errors import InputError
from wirework.model import load
from wirework.nn import Transformer
from wirework.signals import Interrupted
from wirework.training import train
from wirework.training.batch_evaluation import evaluate_batches
from wirework.training.hard_concrete import (
    HardConcrete,
    final_gates,
    open_probability,
    sample_gates,
)
from wirework.training.metrics import read_metrics
from wirework.training.prior import Prior, losses_of

DEFAULT = HardConcreteConfig()
MODEL = ModelConfig(vocab_size=16, n_ctx=8, n_layer=1, d_model=16, d_head=8)
TOKENS = torch.arange(8)[None]
ON = {"coef": 1e-4, "lr_scale": 100.0}


def prior_of(**changes: float) -> tuple[HardConcrete, Transformer]:
    prior = HardConcrete(HardConcreteConfig(**{"lr_scale": 1.0, **changes}), steps=4)
    return prior, prior.wrap_model(Transformer(MODEL))


def test_gates_worked_by_hand():
    # u = 1/2 has logit 0, so s = sigmoid(log_alpha / beta), and the gate is 1.2 s - 0.1, cut.
    alpha = torch.tensor([0.0, math.log(3) * 2 / 3, -5.0, 5.0])
    gates = sample_gates(alpha, torch.full((4,), 0.5), DEFAULT)
    assert gates.tolist() == pytest.approx([0.5, 0.8, 0.0, 1.0])
    # u = 3/4 has logit log 3.
    shifted = sample_gates(torch.zeros(1), torch.tensor([0.75]), DEFAULT)
    assert shifted.item() == pytest.approx(1.2 / (1 + 3**-1.5) - 0.1)
    # The final gate of log_alpha = log 3 is 1.2 * 3/4 - 0.1; it is 0 from log(1/11) downward.
    alpha = torch.tensor([math.log(3), math.log(1 / 11) - 1e-4, math.log(1 / 11) + 1e-3])
    final = final_gates(alpha, DEFAULT)
    assert final[0].item() == pytest.approx(0.8)
    assert final[1] == 0
    assert final[2] > 0


def test_the_ends_of_the_uniform_interval_give_finite_gates():
    gates = sample_gates(torch.zeros(2), torch.tensor([0.0, 1.0]), DEFAULT)
    assert gates.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("log_alpha", [-2.0, -0.5, 1.0])
def test_the_open_probability_is_the_share_of_drawn_gates_that_are_not_0(log_alpha):
    alpha = torch.full((200_000,), log_alpha)
    uniform = torch.rand(len(alpha), generator=torch.Generator().manual_seed(0))
    share = (sample_gates(alpha, uniform, DEFAULT) > 0).float().mean().item()
    assert share == pytest.approx(open_probability(alpha[:1], DEFAULT).item(), abs=5e-3)


def test_every_weight_begins_with_the_probability_of_the_settings():
    prior, transformer = prior_of(initial_open=0.7, coef=1.0)
    losses = losses_of(transformer, [prior], TOKENS, TOKENS)
    n_weights, _ = transformer.weight_counts()
    assert losses["expected_l0"].item() == pytest.approx(0.7 * n_weights, rel=1e-5)
    assert losses["loss_l0"].item() == pytest.approx(0.7 * n_weights, rel=1e-5)
    assert losses["total"].item() == pytest.approx((losses["loss"] + losses["loss_l0"]).item())


def test_open_gates_leave_the_model_as_it_is_and_closed_ones_leave_nothing():
    prior, transformer = prior_of()
    plain = transformer(TOKENS)
    for gate in prior.parameters().values():
        gate.data.fill_(50.0)
    with prior.final_weights():
        assert torch.equal(transformer(TOKENS), plain)
    assert losses_of(transformer, [prior], TOKENS, TOKENS)["l0_fraction"] == 1
    for gate in prior.parameters().values():
        gate.data.fill_(-50.0)
    assert losses_of(transformer, [prior], TOKENS, TOKENS)["l0_fraction"] == 0
    prior.finish()
    assert transformer.weight_counts()[1] == 0


def test_the_penalty_alone_closes_gates():
    prior, transformer = prior_of(coef=1.0)
    losses_of(transformer, [prior], TOKENS, TOKENS)["total"].backward()
    assert all((present(gate.grad) > 0).all() for gate in prior.parameters().values())
    assert "hard_concrete.blocks.0.mlp.up.bias" in prior.parameters()
    assert all(gate.dim() == 1 for gate in prior.parameters().values())  # no weight decay


def test_a_run_saves_exact_zeros_and_the_loss_that_it_reports(settings):
    config = settings("l0", weight_sparsity=None, hard_concrete=ON, steps=40, eval_every=20)
    run = train(config, progress=False)
    lines = read_metrics(run.path / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    assert steps[-1]["expected_l0"] < steps[0]["expected_l0"]
    assert steps[0]["l0_fraction"] == 1
    fraction = run.metrics["nonzero_fraction"]
    assert 0 < fraction < 1
    loaded = load(run.path).transformer
    entries, nonzero = loaded.weight_counts()
    assert nonzero / entries == fraction
    # The evaluation of the run was one of these weights, and not of drawn or of open gates.
    again = train(config, resume=True, progress=False)
    assert again.metrics == run.metrics


def test_the_evaluation_is_one_of_the_final_weights(settings, monkeypatch):
    seen = []

    def spy(transformer, *rest):
        seen.append(transformer.unembed.weight.detach().clone())
        return evaluate_batches(transformer, *rest)

    monkeypatch.setattr("wirework.training.loop.evaluate_batches", spy)
    run = train(settings("l0", weight_sparsity=None, hard_concrete=ON, steps=20), progress=False)
    assert torch.equal(seen[-1], run.model.transformer.unembed.weight)


class Stopper(Prior):
    """Ends the run after a step."""

    def after_step(self, step: int) -> dict[str, float]:
        if step == 9:
            raise Interrupted(15, "stopped by the test")
        return {}


@pytest.mark.parametrize("sparsity", [None, {"l0_fraction": 0.15, "floor": 2}])
@pytest.mark.parametrize("gating", [None, {"k_attention": 4, "k_neurons": 4}])
def test_a_stopped_run_resumes_to_the_same_model(settings, sparsity, gating):
    changes = {"weight_sparsity": sparsity, "hard_concrete": ON, "gating": gating}
    whole = train(settings("whole", **changes), progress=False)
    cut = settings("cut", **changes)
    with pytest.raises(Interrupted):
        train(cut, progress=False, priors=[Stopper()])
    again = train(cut, resume=True, progress=False)
    for name, value in whole.model.transformer.state_dict().items():
        assert torch.equal(value, again.model.transformer.state_dict()[name]), name
    assert whole.metrics["nonzero_fraction"] == again.metrics["nonzero_fraction"]
    assert whole.metrics["val_loss"] == again.metrics["val_loss"]


def test_live_gradients_are_refused(settings):
    with pytest.raises(InputError, match="live does not work with hard_concrete"):
        settings("l0", weight_sparsity={"gradient": "live"}, hard_concrete={})
