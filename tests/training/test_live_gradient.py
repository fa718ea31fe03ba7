"""Training of live weights only: against exact training, resumed runs, and refused settings."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_resume import assert_same

from wirework.errors import InputError
from wirework.nn.shapes import n_parameters
from wirework.training import loop, train
from wirework.training.checkpoint import model_weights
from wirework.training.live_gradient import LiveGradient
from wirework.training.metrics import read_metrics

LIVE = {"l0_fraction": 0.05, "gradient": "live", "live_below": 0.5, "dense_every": 3}


def losses(run):
    return [line["loss"] for line in read_metrics(run.path / "metrics.jsonl") if "loss" in line]


def test_with_every_weight_a_candidate_training_is_exact(settings):
    exact = train(settings("exact"), progress=False)
    every = {"gradient": "live", "live_below": 1.0, "candidates": 1e6}
    live = train(settings("live", weight_sparsity=every), progress=False)
    assert losses(live) == pytest.approx(losses(exact), rel=1e-5)
    for (name, one), other in zip(
        exact.model.transformer.state_dict().items(),
        live.model.transformer.state_dict().values(),
        strict=True,
    ):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5, msg=name)


def test_the_norm_of_the_whole_gradient_is_known_when_all_is_dense(settings):
    def norms(name, **changes):
        run = train(settings(name, steps=8, weight_sparsity=changes), progress=False)
        lines = read_metrics(run.path / "metrics.jsonl")
        return [line["grad_rms"] for line in lines if "grad_rms" in line]

    # The first live step has the same weights as the exact run; later ones drift apart.
    exact = norms("exact", anneal_end=0.4)
    live = norms("live", anneal_end=0.4, **{**LIVE, "l0_fraction": 0.15, "dense_every": 1})
    assert live == pytest.approx(exact, rel=0.05)
    assert live[:4] == pytest.approx(exact[:4], rel=1e-5)


def test_a_live_run_ends_dense_in_form_and_sparse_in_fact(settings):
    run = train(settings("live", weight_sparsity=LIVE), progress=False)
    transformer = run.model.transformer
    assert all(p.requires_grad for p in transformer.parameters())
    assert transformer.blocks[0].mlp.up.live is None
    weight = transformer.blocks[0].mlp.up.weight
    assert int(weight.count_nonzero()) == max(round(0.05 * weight.numel()), 2 * len(weight))
    assert losses(run)[-1] < losses(run)[0]


def test_a_checkpoint_of_live_weights_gives_those_of_the_model(settings):
    run = train(settings("live", weight_sparsity=LIVE, checkpoint_every=4), progress=False)
    last = max((run.path / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    tensors = load_file(last / "tensors.safetensors")
    weights = run.model.transformer.state_dict()
    assert any(name.startswith("live/places/") for name in tensors)
    found = model_weights(tensors, weights)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_zero_weights_come_alive(settings):
    changes = {**LIVE, "l0_fraction": 0.2, "floor": 0, "anneal_start": 0.0, "anneal_end": 0.1}
    optimizer = {"lr": 0.01, "weight_decay": 1.0}
    config = settings("live", steps=20, optimizer=optimizer, weight_sparsity=changes)
    config = config.model_copy(update={"keep_checkpoints": 9})
    run = train(config, progress=False)
    name, alive = "blocks.0.mlp.up.weight", []
    for step in (4, 20):
        tensors = load_file(run.path / f"checkpoints/step-{step}/tensors.safetensors")
        places, values = tensors[f"live/places/{name}"], tensors[f"live/values/{name}"]
        assert (values == 0).any()
        alive.append(set(places[values != 0].tolist()))
    weight = run.model.transformer.blocks[0].mlp.up.weight
    assert set(weight.view(-1).nonzero().view(-1).tolist()) == alive[1]
    assert alive[1] - alive[0]


START = {**LIVE, "floor": 0, "start_fraction": 0.1, "anneal_start": 0.5, "anneal_end": 0.8}


@pytest.mark.parametrize("gradient", ["exact", "live"])
def test_a_run_may_begin_with_few_weights(settings, gradient):
    changes = {**START, "gradient": gradient}
    run = train(settings("few", weight_sparsity=changes), progress=False)
    lines = [line for line in read_metrics(run.path / "metrics.jsonl") if "l0_fraction" in line]
    assert lines[0]["l0_fraction"] == pytest.approx(0.1, abs=0.02)
    assert lines[-1]["l0_fraction"] == pytest.approx(0.05, abs=0.02)
    assert losses(run)[-1] < losses(run)[0]


@pytest.mark.parametrize("gradient", ["exact", "live"])
def test_the_first_step_sees_the_projected_weights(settings, gradient, monkeypatch):
    fractions = []
    step = loop.training_step

    def noted(job, *batch):
        fractions.append(loop.measured_nonzero_fraction(job))
        return step(job, *batch)

    monkeypatch.setattr(loop, "training_step", noted)
    train(settings("few", weight_sparsity={**START, "gradient": gradient}), progress=False)
    assert fractions[0] == pytest.approx(0.1, abs=0.02)


def test_candidates_are_chosen_by_the_rule(settings):
    changes = {**LIVE, "live_below": 1.0, "dense_every": 1, "l0_fraction": 0.05}
    places = []
    for rule in ("first_moment", "gradient"):
        config = settings(rule, weight_sparsity={**changes, "candidate_rule": rule})
        run = train(config, progress=False)
        tensors = load_file(run.path / "checkpoints/step-12/tensors.safetensors")
        places.append({n: set(t.tolist()) for n, t in tensors.items() if "live/places/" in n})
    assert places[0] != places[1]


def test_a_live_run_that_begins_sparse_keeps_no_gradients_of_whole_matrices(settings, monkeypatch):
    seen = []
    plan = LiveGradient.plan

    def noted(self, step):
        seen.append([matrix.layer.weight.grad for matrix in self.matrices])
        plan(self, step)

    monkeypatch.setattr(LiveGradient, "plan", noted)
    train(settings("few", weight_sparsity=START), progress=False)
    assert len(seen) == 12
    assert all(gradients and not any(g is not None for g in gradients) for gradients in seen)


def test_a_checkpoint_holds_the_trained_entries_only(settings):
    run = train(settings("live", weight_sparsity=LIVE), progress=False)
    tensors = load_file(run.path / "checkpoints/step-12/tensors.safetensors")
    name = "blocks.0.mlp.up.weight"
    n = len(tensors[f"live/places/{name}"])
    assert n <= 5 * run.model.transformer.blocks[0].mlp.up.weight.count_nonzero() + 1
    assert tensors[f"live/values/{name}"].shape == (n,)
    assert tensors[f"live/exp_avg/{name}"].shape == (n,)
    assert f"model/{name}" not in tensors
    assert f"optimizer/exp_avg/{name}" not in tensors


@pytest.mark.parametrize("changes", [LIVE, START], ids=["dense at first", "sparse at first"])
@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_run_ends_bitwise_the_same(settings, monkeypatch, stop, changes):
    class StopError(Exception):
        pass

    whole = train(settings("whole", weight_sparsity=changes), progress=False)
    config = settings("stopped", weight_sparsity=changes)
    saved = []

    def stopped(*_):
        saved.append(1)
        if len(saved) == stop // 4:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr("wirework.training.loop.prune_checkpoints", stopped)
        with pytest.raises(StopError):
            train(config, progress=False)
    assert_same(train(config, resume=True, progress=False).path, whole.path)


def test_a_damaged_checkpoint_is_refused(settings, monkeypatch):
    config = settings("live", weight_sparsity=LIVE)
    run = train(config, progress=False)
    (run.path / "metrics.jsonl").write_text(
        "".join(
            line + "\n"
            for line in (run.path / "metrics.jsonl").read_text().splitlines()
            if json.loads(line)["kind"] != "final"
        )
    )

    def short(path):
        tensors = load_file(path)
        name = "live/values/blocks.0.mlp.up.weight"
        return {**tensors, name: tensors[name][:-1]}

    monkeypatch.setattr("wirework.training.checkpoint.read_tensors", short)
    with pytest.raises(InputError, match="does not fit the model: live/values"):
        train(config, resume=True, progress=False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gating": {"k_attention": 2, "k_neurons": 2}}, "gating"),
        ({"model": {"tied_embedding": True}}, "model.tied_embedding"),
        ({"precision": "bfloat16"}, "precision: bfloat16"),
        ({"device": "cuda"}, "device: cuda"),
    ],
)
def test_settings_whose_gradients_are_not_of_live_entries_are_refused(settings, changes, named):
    with pytest.raises(InputError, match=f"live does not work with {named}; use exact"):
        settings(weight_sparsity=LIVE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense_every": 0},
        {"candidates": 0},
        {"live_below": 0},
        {"live_below": 2},
        {"gradient": "x"},
    ],
)
def test_impossible_settings_are_refused(settings, changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        settings(weight_sparsity=changes)


def test_without_numba_live_is_refused(settings, monkeypatch):
    reason = "numba is not installed"
    monkeypatch.setattr("wirework.nn.kernels.compiled.why_not", lambda: reason)
    with pytest.raises(InputError, match=f"live needs numba: {reason}; use exact"):
        train(settings(weight_sparsity=LIVE), progress=False)


@pytest.mark.parametrize(("start", "fits"), [(0.02, True), (1.0, False)])
def test_a_live_run_that_begins_with_few_weights_needs_memory_for_these(
    settings, monkeypatch, start, fits
):
    changes = {**LIVE, "floor": 0, "start_fraction": start, "l0_fraction": 0.02}
    config = settings("few", weight_sparsity=changes)
    available = 10 * n_parameters(config.model)
    monkeypatch.setattr("wirework.memory.available_bytes", lambda: available)
    if fits:
        train(config, progress=False)
    else:
        with pytest.raises(InputError, match="of memory"):
            train(config, progress=False)


@pytest.mark.parametrize("name", ["WIREWORK_SPARSE", "WIREWORK_PRODUCTS"])
def test_an_error_in_the_environment_comes_before_anything_is_written(settings, monkeypatch, name):
    monkeypatch.setenv(name, "abc")
    config = settings("new")
    with pytest.raises(InputError, match=f"{name} must be"):
        train(config, progress=False)
    assert not (config.runs / config.name).exists()
