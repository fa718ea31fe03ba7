"""Models of ours: what was saved comes back, and what cannot be right is refused in a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import wirework as ww
from wirework import files
from wirework.config import GatingConfig, ModelConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates

SMALL: dict[str, Any] = {"vocab_size": 23, "n_ctx": 12, "n_layer": 2, "d_model": 16, "d_head": 4}
TOKENS = torch.arange(12)[None]


def saved(folder: Path, *, gates: bool = False, **change: Any) -> Path:
    config = ModelConfig(**(SMALL | change))
    transformer = Transformer(config, seed=3)
    with torch.no_grad():
        transformer.blocks[0].mlp.up.weight[2:] = 0  # stored sparsely
    gating = GatingConfig(k_attention=2, k_neurons=3)
    return Model(transformer, gates=Gates(config, gating) if gates else None).save(folder)


def rewrite(
    folder: Path,
    tensors: Callable[[dict[str, Tensor]], Any] | None = None,
    config: dict[str, Any] | None = None,
    name: str = "model.safetensors",
) -> None:
    """Change a folder, checksums and all, as one who means to would."""
    if tensors is not None:
        state = load_file(folder / name)
        changed = tensors(state)
        save_file(state if changed is None else changed, folder / name)
    if config is not None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | config))
    sums = {path.name: files.sha256(path) for path in folder.iterdir()}
    sums.pop("checksums.json")
    (folder / "checksums.json").write_text(json.dumps(sums))


def refused(folder: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ww.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("change", [{}, {"tied_embedding": True, "norm": "layer"}])
def test_what_was_saved_comes_back(change: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", **change)
    model = ww.load(folder)
    assert model.fingerprint == ww.load(folder).fingerprint
    again = ww.load(model.save(tmp_path / "again"))
    assert again.fingerprint == model.fingerprint
    assert torch.equal(again(TOKENS), model(TOKENS))


SET = dict.__setitem__
UP = "blocks.0.mlp.up.weight"
DENSE = "blocks.1.attn.qkv.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop(DENSE), f"lacks the tensor {DENSE}"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("blocks.1")],
            r"lacks the tensor blocks\.1\.norm1\.weight and \d+ others \(blocks",
        ),
        (lambda s: s.clear(), "has 0 tensors, too few for the config's 2 layers"),
        (lambda s: SET(s, "extra", torch.ones(1)), "has an unknown tensor extra"),
        (lambda s: SET(s, DENSE, torch.ones(3, 3)), r"is \(3, 3\), the config says \(48, 16\)"),
        (lambda s: SET(s, DENSE, torch.full((48, 16), torch.nan)), f"{DENSE} has an entry that is"),
        (lambda s: SET(s, DENSE, torch.full((48, 16), torch.inf)), f"{DENSE} has an entry that is"),
        (lambda s: SET(s, DENSE, torch.ones(48, 16, dtype=torch.int8)), f"{DENSE} is int8; weigh"),
        (lambda s: SET(s, DENSE, torch.ones(48, 16, dtype=torch.complex64)), "is complex64"),
        (
            lambda s: SET(s, DENSE, torch.ones(48, 16).to(torch.float8_e4m3fn)),
            "is float8_e4m3fn; weights must be float32",
        ),
        (lambda s: SET(s, f"{UP}.indices", s[f"{UP}.indices"].float()), "indices is float32"),
        (lambda s: SET(s, f"{UP}.values", s[f"{UP}.values"] * torch.nan), f"{UP} has an entry"),
        (lambda s: SET(s, f"{UP}.values", s[f"{UP}.values"].char()), "values is int8"),
        (lambda s: SET(s, f"{UP}.shape", torch.tensor([10**12, 16])), "the config says"),
        (lambda s: SET(s, "z.shape", torch.tensor([1])), "tensor z.shape has no indices"),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_right_are_named(change: Any, says: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")

    def apply(state: dict[str, Tensor]) -> None:
        change(state)

    rewrite(folder, apply)
    refused(folder, says)


def test_gates_are_checked_alike(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", gates=True)
    name = "local.1.neurons.weight"
    rewrite(folder, lambda s: {**s, name: s[name] * torch.nan}, name="gates.safetensors")
    refused(folder, f"gates.safetensors: {name} has an entry that is NaN")
    rewrite(folder, lambda s: {k: v for k, v in s.items() if k != name}, name="gates.safetensors")
    refused(folder, f"gates.safetensors lacks the tensor {name}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_another_precision_is_converted_and_said(
    dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "m")
    rewrite(folder, lambda s: {**s, DENSE: s[DENSE].to(dtype)})
    model = ww.load(folder)
    assert model.transformer.get_parameter(DENSE).dtype == torch.float32
    kind = str(dtype).removeprefix("torch.")
    assert f"model.safetensors: 1 tensor of {kind} converted to float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"d_model": 10**12},
        {"n_layer": 10**9, "d_mlp": 10**6},
        {"d_head": 10**9},
        {"vocab_size": 2**63 - 1},
        {"n_ctx": 10**15, "positions": "added"},
        {"n_head": 2**62},
    ],
)
def test_a_config_far_too_large_is_refused_with_both_numbers(
    change: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    rewrite(folder, config=change)
    refused(folder, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are available")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_head": 10**30}, "d_head: an integer below 2"),
        ({"vocab_size": 2**63}, "vocab_size: an integer below 2"),
        ({"d_model": 1e30}, "d_model: "),
        ({"n_layer": 20_000}, "tensors, too few for the config's 20000 layers"),
        ({"d_mlp": 65}, r"up.bias is \(64,\), the config says \(65,\)"),
    ],
)
def test_a_config_that_is_impossible_or_of_another_model_is_refused(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    rewrite(folder, config=change)
    refused(folder, says)


def test_a_tokeniser_larger_than_the_model_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    tokenizer.save(folder / "tokenizer.json")
    refused(folder, "the tokeniser has 512 tokens, the model only 23: it is of another model")


def test_a_released_model_is_pointed_to_its_converter(tmp_path: Path) -> None:
    (tmp_path / "beeg_config.json").write_text("{}")
    refused(tmp_path, "is a released model: `wirework convert openai` reads it")
