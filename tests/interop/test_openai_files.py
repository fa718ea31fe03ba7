"""Released models as people have them: from the hub, with more tensors, damaged, far too large."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_reference import BASE, random_state, write
from safetensors.torch import save_file
from torch import Tensor

import wirework as ww
from wirework.commands.convert import openai as convert
from wirework.data.bpe import GPT2_PATTERN, PATTERN, byte_level_bpe
from wirework.errors import InputError
from wirework.interop import load_huggingface, load_openai, load_self_ablating

EXAMPLE = Path(__file__).parents[1] / "data" / "openai_gpt_example"
SELF_ABLATING = Path(__file__).parents[1] / "data" / "self_ablating_example"
HUB_FIELDS: dict[str, Any] = {
    "model_type": "circuitgpt", "architectures": ["CircuitGPTForCausalLM"], "dtype": "float32",
    "transformers_version": "4.57.0", "eos_token_id": 2047,
    "auto_map": {"AutoConfig": "config.C", "AutoModelForCausalLM": "modeling_circuitgpt.M"},
}  # fmt: skip


def hub_copy(out: Path, parts: int = 1, prefix: str = "circuit_model.") -> Path:
    """Lay the example out as it is on the hub."""
    out.mkdir(parents=True, exist_ok=True)
    fields = json.loads((EXAMPLE / "beeg_config.json").read_text())
    (out / "config.json").write_text(json.dumps(fields | HUB_FIELDS))
    state = torch.load(EXAMPLE / "final_model.pt", weights_only=True)
    named = {f"{prefix}{name}": t.to_dense().contiguous() for name, t in state.items()}
    if parts == 1:
        save_file(named, out / "model.safetensors")
        return out
    places = {name: f"model-{i % parts}.safetensors" for i, name in enumerate(named)}
    for part in set(places.values()):
        save_file({n: t for n, t in named.items() if places[n] == part}, out / part)
    (out / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return out


def refused(folder: Path, says: str, load: Any = load_openai) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_openai, load_huggingface])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_layout_of_the_hub_is_the_same_model(
    load: Any, parts: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(hub_copy(tmp_path / "hub", parts))
    assert model.fingerprint == load_openai(EXAMPLE).fingerprint
    assert capsys.readouterr().err == ""


def test_the_layout_of_the_release_is_read_by_both_commands() -> None:
    assert load_huggingface(EXAMPLE).fingerprint == load_openai(EXAMPLE).fingerprint


def test_a_folder_of_another_kind_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    refused(tmp_path, r"config\.json is not that of a weight-sparse model")


@pytest.mark.parametrize("load", [load_openai, load_self_ablating])
def test_an_extra_tensor_is_named_in_a_warning(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = EXAMPLE if load is load_openai else SELF_ABLATING
    for path in example.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / ("final_model.pt" if load is load_openai else "model.pt")
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "transformer.h.0.attn.c_attn.aux": torch.zeros(1)}, weights)
    assert load(tmp_path).fingerprint == load(example).fingerprint
    said = capsys.readouterr().err
    assert "ignored: transformer.h.0.attn.c_attn.aux" in said


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_wrappers_of_training_are_taken_off(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = random_state(BASE)
    expected = load_openai(write(tmp_path / "a", BASE, state)).fingerprint
    named = {prefix + name: tensor for name, tensor in state.items()}
    assert load_openai(write(tmp_path / "b", BASE, named)).fingerprint == expected
    assert f"the prefix '{prefix}' was removed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "says"),
    [(torch.nan, "NaN or infinite"), (torch.inf, "NaN or infinite")],
)
def test_weights_that_are_not_finite_are_refused(value: float, says: str, tmp_path: Path) -> None:
    state = random_state(BASE)
    state["transformer.h.1.mlp.c_fc.weight"][0, 0] = value
    refused(write(tmp_path, BASE, state), rf"h\.1\.mlp\.c_fc\.weight has an entry that is {says}")


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_weights_that_are_no_plain_numbers_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    state: dict[str, Tensor] = random_state(BASE)
    name = "transformer.h.1.mlp.c_fc.weight"
    refused(
        write(tmp_path / "a", BASE, {**state, name: state[name].to(dtype)}),
        rf"c_fc\.weight is {str(dtype).removeprefix('torch.')}; weights must be float32",
    )
    with warnings.catch_warnings(action="ignore"):  # torch advises against it
        quantised = torch.quantize_per_tensor(state[name].float(), 0.1, 0, torch.qint8)
    refused(write(tmp_path / "b", BASE, {**state, name: quantised}), r"c_fc\.weight is quantised")


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    write(tmp_path, BASE, random_state(BASE))
    path = tmp_path / "beeg_config.json"
    expected = load_openai(tmp_path).fingerprint
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_openai(tmp_path).fingerprint == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": 10**12}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"n_layer": 10**12}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"d_head": 10**12}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"d_mlp": 10**15}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"block_size": 10**15}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"vocab_size": 2**63 - 1}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB"),
        ({"vocab_size": 2**63}, "vocab_size: an integer below 2"),
        ({"d_head": 10**30}, "d_head: an integer below 2"),
        ({"d_model": 1e30}, "d_model: "),
        ({"d_pos_emb": 10**15}, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"),
        ({"n_layer": 10_000}, "tensors, too few for the config's 10000 layers"),
    ],
)
def test_a_config_far_too_large_is_one_line(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    refused(write(tmp_path, BASE | change, random_state(BASE)), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": 10**12}, "GB of memory"),
        ({"num_layers": 10**12, "attention_layers": None}, "GB of memory"),
        ({"vocab_size": 2**63 - 1}, "GB of memory"),
        ({"max_position_embeddings": 10**15}, "GB of memory"),
        ({"mlp_hidden_size": 10**30}, "mlp_hidden_size: an integer below 2"),
        ({"num_layers": 1000, "attention_layers": None}, "too few for the config's 1000 layers"),
    ],
)
def test_a_self_ablating_config_far_too_large_is_one_line(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes((SELF_ABLATING / "model.pt").read_bytes())
    config = json.loads((SELF_ABLATING / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    refused(tmp_path, says, load_self_ablating)


def zip_without_directory() -> bytes:
    whole = (EXAMPLE / "final_model.pt").read_bytes()
    return whole[: whole.rindex(b"PK\x01\x02") // 2]


class _Foreign:
    """What unpickling must never build."""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged: it is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a git-LFS pointer, .*git lfs pull",
        ),
        (b"<!DOCTYPE html><html>404", "it is an HTML page, not the file: download it again"),
        (zip_without_directory(), r"it is cut off \(a zip archive without its directory\)"),
        (
            pickle.dumps(_Foreign(), protocol=2),
            r"holds the Python object \S+_Foreign, which is not loaded",
        ),
        (pickle.dumps(_Foreign(), protocol=4), "state dict: Unsupported operand 149$"),
        (b"\x80\x02.", "is damaged or not a PyTorch state dict"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_said(
    content: bytes, says: str, tmp_path: Path
) -> None:
    write(tmp_path, BASE, {})
    (tmp_path / "final_model.pt").write_bytes(content)
    refused(tmp_path, rf"final_model\.pt .*{says}|final_model\.pt {says}")


def test_an_archive_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, BASE, {})
    with zipfile.ZipFile(tmp_path / "final_model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10**7))
    monkeypatch.setattr("wirework.memory.available_bytes", lambda: 10**6)
    refused(tmp_path, r"reading .*final_model\.pt needs 0\.0 GB of memory")


def put_vocabulary(folder: Path, texts: list[str], pattern: str, size: int) -> None:
    import tokenizers

    learner = byte_level_bpe([], pattern=pattern, end_of_text=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    (folder / "encoder.json").write_text(json.dumps(model["vocab"]))
    (folder / "vocab.bpe").write_text("\n".join(" ".join(pair) for pair in model["merges"]))


def test_the_split_is_shown_by_the_vocabulary_or_asked_for(tmp_path: Path) -> None:
    config = BASE | {"vocab_size": 400}
    folder = write(tmp_path / "m", config, random_state(config))
    text = ["x.y(self) = 12345\n  for 2019 in (99):\n"] * 50
    put_vocabulary(folder, text, GPT2_PATTERN, 300)
    tokenizer = load_openai(folder).tokenizer
    assert tokenizer is not None
    assert [tokenizer.token(i) for i in tokenizer.encode(" 2019")] == [" 2019"]
    put_vocabulary(folder, text, PATTERN, 300)
    tokenizer = load_openai(folder).tokenizer
    assert tokenizer is not None
    assert [tokenizer.token(i) for i in tokenizer.encode("(self")] == ["(self"]
    put_vocabulary(folder, ["word"] * 50, PATTERN, 258)
    refused(folder, r"encoder\.json: its 258 tokens fit more than one split pattern: .*--split")
    convert(folder, tmp_path / "ours", split="tinypython")
    loaded = ww.load(tmp_path / "ours").tokenizer
    assert loaded is not None
    assert loaded.fingerprint == ww.Tokenizer.load(folder, "tinypython").fingerprint
