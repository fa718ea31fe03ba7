"""Reading the released self-ablating models: the example's numbers, variants, ways to be wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from present import present
from self_ablating_reference import BASE, Reference, random_state, write
from torch import Tensor

import wirework as ww
from wirework.errors import InputError
from wirework.interop import load_self_ablating

EXAMPLE = Path(__file__).parents[1] / "data" / "self_ablating_example"

VARIANTS: dict[str, dict[str, Any]] = {
    "local": {},
    "global": {"has_layer_by_layer_ablation_mask": False, "has_overall_ablation_mask": True},
    "both": {"has_overall_ablation_mask": True},
    "soft": {"ablation_processing": "soft-top-K-version-1"},
    "temperatures": {"temperature_attention": 0.5, "temperature_neurons": 2.0},
    "epsilon": {"top_k_epsilon": 0.1},
    "no reconstruction": {"reconstruction_loss_type": None},
    "coefficients": {"loss_coeff_base": 0.3, "loss_coeff_ablated": 2.0, "reconstruction_coeff": 5},
    "windows": {"attention_layers": ["local", "global"], "window_size": 3},
    "narrow MLP": {"mlp_hidden_size": 24},
    "MLP of null": {"mlp_hidden_size": None},
    "layers of null": {"attention_layers": None},
    "one winner": {"k_attention": 1, "k_neurons": 1},
    "one layer": {"num_layers": 1, "attention_layers": ["global"]},
}


def loaded(folder: Path) -> ww.Model:
    """Load in float64, with every warning an error."""
    model = load_self_ablating(folder)
    assert model.gates is not None
    model.transformer.double()
    model.gates.double()
    return model


def test_the_example_comes_out_through_the_loader() -> None:
    known = {name: torch.from_numpy(v) for name, v in np.load(EXAMPLE / "io.npz").items()}
    model = loaded(EXAMPLE)
    out = model.streams(known["input_ids"], known["targets"])
    for name in ("logits_clean", "logits_ablated", "loss_clean", "loss_ablated"):
        wanted = known[f"{name}_f64"]
        torch.testing.assert_close(getattr(out, name), wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(out.attention_masks.float(), known["attention_ablations"])
    assert torch.equal(out.neuron_masks.float(), known["neuron_ablations"])
    torch.testing.assert_close(present(out.loss).float(), known["loss_f64"].squeeze())
    present(out.loss).backward()
    found = gradients(model)
    names = {name.removeprefix("grad/") for name in known if name.startswith("grad/")}
    assert names == found.keys() - {"lm_head.weight"}
    for name in names:
        wanted = known[f"grad/{name}"].double()
        nearly = 1e-6 * float(wanted.abs().max())
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=nearly)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_every_variant_is_the_reference(variant: dict[str, Any], kind: str, tmp_path: Path) -> None:
    config = BASE | variant
    state = random_state(config)
    write(tmp_path, config, state, kind)
    model = loaded(tmp_path)
    tokens = torch.randint(config["vocab_size"], (3, config["max_position_embeddings"]))
    targets = torch.randint(config["vocab_size"], tokens.shape)
    reference = Reference(config, state)
    wanted = reference(tokens, targets)
    out = model.streams(tokens, targets)
    for name, value in wanted.items():
        torch.testing.assert_close(getattr(out, name), value, rtol=1e-9, atol=1e-10)
    present(out.loss).backward()
    wanted["loss"].backward()
    found = gradients(model)
    for name, tensor in reference.state.items():
        torch.testing.assert_close(found[name], tensor.grad, rtol=1e-7, atol=1e-10)
    assert torch.equal(model(tokens), out.logits_clean)


def gradients(model: ww.Model) -> dict[str, Tensor]:
    """Return the gradients under the released names."""
    from wirework.interop.self_ablating import _their_names

    named = dict(model.transformer.named_parameters())
    named |= {f"gates.{name}": p for name, p in present(model.gates).named_parameters()}
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        theirs = _their_names(name)
        assert parameter.grad is not None
        found |= dict(zip(theirs, parameter.grad.chunk(len(theirs)), strict=True))
    return found


def test_what_the_configuration_leaves_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**BASE, "k_attention": 2}
    del config["temperature_neurons"], config["k_neurons"]
    write(tmp_path, {**config, "surprise": 1}, random_state(BASE), "json")
    model = load_self_ablating(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert any("k_neurons = 32, temperature_neurons = 0.1" in line for line in said)
    assert any("unknown fields are ignored: surprise" in line for line in said)
    assert present(model.gates).gating.k_attention == 2


def test_a_runs_own_words_are_understood(tmp_path: Path) -> None:
    config = {**BASE, "ablation_mask_level": "overall", "reconstuction_loss": None}
    for name in ("has_layer_by_layer_ablation_mask", "has_overall_ablation_mask"):
        del config[name]
    del config["reconstruction_loss_type"]
    level = {"has_layer_by_layer_ablation_mask": False, "has_overall_ablation_mask": True}
    write(tmp_path, config, random_state({**BASE, **level}), "yaml")
    (tmp_path / "config.yaml").write_text(
        (tmp_path / "config.yaml").read_text() + "_wandb:\n  value: {cli_version: 1}\n"
    )
    model = load_self_ablating(tmp_path)
    assert present(model.gates).gating.level == "global"
    assert present(model.gates).gating.reconstruction_coef == 0


def test_saved_as_ours_it_keeps_its_gates(tmp_path: Path) -> None:
    model = load_self_ablating(EXAMPLE)
    again = ww.load(model.save(tmp_path / "m"))
    tokens = torch.randint(64, (2, 16))
    one, other = model.streams(tokens, tokens), again.streams(tokens, tokens)
    assert torch.equal(one.logits_ablated, other.logits_ablated)
    assert torch.equal(one.loss, other.loss)
    assert present(again.gates).gating == present(model.gates).gating


def refused(folder: Path | str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_self_ablating(folder)
    assert "\n" not in str(caught.value)


def test_ways_to_be_wrong_are_one_line_each(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(EXAMPLE, folder)
    config = json.loads((folder / "config.json").read_text())
    for change, says in (
        ({"k_attention": 32}, "k_attention must be below the model's 32 units"),
        ({"k_neurons": 0}, "k_neurons"),
        ({"num_heads": 5}, "cannot be divided into 5 heads"),
        ({"attention_layers": ["global"]}, "attention_layers must be 2"),
        ({"attention_layers": ["global", "sparse"]}, "attention_layers must be 2"),
        ({"ablation_processing": "hard"}, "ablation_processing"),
        ({"reconstruction_loss_type": "L1"}, "reconstruction_loss_type"),
        ({"has_layer_by_layer_ablation_mask": False}, "has no ablation mask"),
        ({"ablation_mask_level": "deep"}, "ablation_mask_level is 'deep'"),
        ({"ablation_mask_level": ["deep"]}, r"ablation_mask_level is \['deep'\]"),
        ({"ablation_mask_level": "overall"}, "disagree"),
        (
            {"has_overall_ablation_mask": True},
            r"lacks the tensor attention_ablations_head\.weight and 3 others \(",
        ),
        ({"num_layers": 3, "attention_layers": None}, r"lacks the tensor transformer\.h\.2"),
        ({"num_layers": 1, "attention_layers": None}, "which the config has no part for"),
        ({"vocab_size": 65}, r"wte.weight is \(64, 32\), the config says \(65, 32\)"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        refused(folder, says)
    (folder / "config.json").write_text("[]")
    refused(folder, "expected an object")
    (folder / "config.json").unlink()
    refused(folder, r"config\.json")
    (folder / "config.yaml").write_text(
        yaml.safe_dump({k: {"value": v} for k, v in config.items()})
    )
    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-100])
    refused(folder, "damaged")
    shutil.copy(EXAMPLE / "model.pt", folder / "two.pt")
    refused(folder, r"expected one \.pt file, found model\.pt, two\.pt")
    assert load_self_ablating(folder / "two.pt").gates is not None
    refused(tmp_path / "none", r"no model at .*none")
    refused("https://example.org/m", "nothing is downloaded")
