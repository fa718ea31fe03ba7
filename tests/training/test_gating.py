"""Training with gates: what is learned, what is saved, and what it goes on from after a kill."""

import signal

import pytest
import torch
from present import present

from wirework.data import Batches, eval_batches, prepare
from wirework.errors import InputError
from wirework.model import Model, load
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.streams import two_streams
from wirework.training import train

GPT_NEO = {
    "activation": "gelu_tanh", "norm": "layer", "positions": "added", "attention_scale": "none",
    "qkv_bias": False, "tied_embedding": True, "sinks": False, "bigram": False,
    "act_fraction": None, "n_layer": 2,
}  # fmt: skip
GATING = {"k_attention": 3, "k_neurons": 4}


@pytest.mark.parametrize("level", ["local", "global", "both"])
def test_a_gated_run_saves_a_plain_model_with_its_gates_beside_it(settings, level):
    config = settings(model=GPT_NEO, weight_sparsity=None, gating={"level": level, **GATING})
    run = train(config, progress=False)
    model = load(run.path)
    tokens = torch.randint(400, (2, 16))
    out = model.streams(tokens, tokens)
    assert torch.equal(out.logits_clean, model(tokens))
    assert torch.equal(out.logits_ablated, run.model.streams(tokens).logits_ablated)
    assert out.attention_masks.shape == (2, 16, 2, 32)
    assert set(out.neuron_masks.sum(-1).unique().tolist()) == {4}
    plain = load(Model(model.transformer).save(run.path / "plain"))
    assert plain.fingerprint == model.fingerprint
    assert plain.gates is None
    with pytest.raises(InputError, match="no gates"):
        plain.streams(tokens)


def test_the_loss_is_the_three_by_their_coefficients(settings):
    gating = {**GATING, "base_coef": 0.5, "ablated_coef": 2.0, "reconstruction_coef": 3.0}
    config = settings(model=GPT_NEO, weight_sparsity=None, gating=gating, steps=1)
    first = train(config, progress=False).history()[0]
    transformer = Transformer(config.model, seed=config.seed)
    gates = Gates(config.model, config.gating, seed=config.seed)
    data = prepare(config.data, progress=False)
    tokens, targets = map(torch.from_numpy, Batches(data.train, 16, 2, config.seed).at(0))
    out = Model(transformer, gates=gates).streams(tokens, targets)
    assert first["loss"] == pytest.approx(present(out.loss_clean).item(), rel=1e-6)
    assert first["loss_ablated"] == pytest.approx(present(out.loss_ablated).item(), rel=1e-6)
    assert first["loss_reconstruction"] == pytest.approx(out.loss_reconstruction.item(), rel=1e-5)
    clean, ablated, reconstruction = map(
        present, (out.loss_clean, out.loss_ablated, out.loss_reconstruction)
    )
    wanted = 0.5 * clean + 2 * ablated + 3 * reconstruction
    torch.testing.assert_close(out.loss, wanted)


def test_held_out_losses_are_those_of_both_streams(settings):
    config = settings(model=GPT_NEO, weight_sparsity=None, gating=GATING, steps=2)
    run = train(config, progress=False)
    held_out = eval_batches(prepare(config.data, progress=False).val, 16, 2, 2)
    found = [run.model.streams(*map(torch.from_numpy, batch)) for batch in held_out]
    means = {
        name: torch.stack([getattr(out, name) for out in found]).mean().item()
        for name in ("loss_clean", "loss_ablated", "loss_reconstruction")
    }
    assert run.metrics["val_loss"] == pytest.approx(means["loss_clean"], rel=1e-6)
    assert run.metrics["val_loss_ablated"] == pytest.approx(means["loss_ablated"], rel=1e-6)
    apart = pytest.approx(means["loss_reconstruction"], rel=1e-5)
    assert run.metrics["val_loss_reconstruction"] == apart


def test_gates_and_weight_sparsity_go_together(settings):
    run = train(settings(gating=GATING), progress=False)  # sinks, AbsTopK, a bigram table
    for prunable in run.model.transformer.prunable():
        size = prunable.parameter.numel()
        assert int(prunable.parameter.count_nonzero()) == max(1, round(0.15 * size))
    assert all(bool((p != 0).all()) for p in present(run.model.gates).parameters() if p.dim() == 2)
    tokens = torch.randint(400, (2, 16))
    assert torch.equal(run.model.streams(tokens).logits_clean, run.model(tokens))


def test_a_killed_gated_run_ends_bitwise_where_it_would_have(settings, driver, tmp_path):
    gated = {"model": GPT_NEO, "weight_sparsity": None, "gating": GATING}
    whole = train(settings("whole", **gated), progress=False)
    stderr = tmp_path / "stderr"
    step = {"call": "wirework.training.loop:scale_gradients_", "nth": 7}
    code = driver.run(settings("cut", **gated), stderr, signals=[signal.SIGKILL], **step)
    assert code == -signal.SIGKILL
    resumed = train(settings("cut", **gated), resume=True, progress=False)
    assert resumed.model.fingerprint == whole.model.fingerprint
    gates, wanted = present(resumed.model.gates), present(whole.model.gates)
    pairs = zip(gates.parameters(), wanted.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert resumed.metrics["val_loss_ablated"] == whole.metrics["val_loss_ablated"]


def test_with_a_frozen_random_gate_the_ablated_loss_does_not_beat_the_clean_one(settings):
    """If it did, the mask would tell the next token."""
    config = settings(model={**GPT_NEO, "n_layer": 1}, weight_sparsity=None, gating=GATING)
    torch.manual_seed(0)
    transformer = Transformer(config.model, seed=1)
    gates = Gates(config.model, config.gating, seed=2).requires_grad_(False)
    optimizer = torch.optim.Adam(transformer.parameters(), lr=3e-3)
    for _ in range(150):
        tokens = torch.randint(40, (8, 17))  # nothing to be learned but 1 in 40
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        streams = two_streams(transformer, gates, inputs)
        ablated = transformer.loss_of(streams.ablated, inputs, targets)
        optimizer.zero_grad()
        (transformer.loss_of(streams.clean, inputs, targets) + ablated).backward()
        optimizer.step()
    chance = torch.tensor(40.0).log().item()
    assert ablated.item() > chance - 0.1


@pytest.mark.parametrize(
    ("gating", "said"),
    [
        ({"k_attention": 32}, "k_attention must be below the model's 32 units, got 32"),
        ({"k_neurons": 0}, "k_neurons"),
        ({"k_neurons": 200}, "k_neurons must be below the model's 128 units, got 200"),
        ({"level": "layer"}, "level"),
    ],
)
def test_impossible_gates_are_refused_in_a_line(settings, gating, said):
    with pytest.raises(InputError, match=said) as caught:
        settings(gating=gating)
    assert "\n" not in str(caught.value)


def test_damaged_gates_are_refused(settings):
    config = settings(model=GPT_NEO, gating=GATING)
    gates = Gates(config.model, config.gating)
    folder = Model(Transformer(config.model), gates=gates).save(config.runs / "m")
    (folder / "gates.json").write_text("{}")
    with pytest.raises(InputError, match=r"gates\.json does not match its checksum"):
        load(folder)
    (folder / "gates.json").unlink()
    with pytest.raises(InputError, match=r"gates\.json is missing"):
        load(folder)
