"""Reading the released models: the oracle's numbers, every variant, every way to be wrong."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai_reference import BASE, Reference, random_state, write
from present import present
from torch import Tensor

import wirework as ww
from wirework.errors import InputError
from wirework.interop import load_openai

EXAMPLE = Path(__file__).parents[1] / "data" / "openai_gpt_example"

ALL = (
    "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out,resid_post_attn,resid_post_mlp"
)

VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "defaults": {"rms_norm": None, "tied_unembed": None},
    "layer norm": {"rms_norm": False},
    "layer norm without bias": {"rms_norm": False, "ln_bias": False},
    "no bias": {"bias": False},
    "default sites": {"afrac": 0.25},
    "all sites": {"afrac": 0.3, "afrac_loctypes": ALL, "sink": True},
    **{f"site {name}": {"afrac": 0.25, "afrac_loctypes": name} for name in ALL.split(",")},
    "no sites": {"afrac": 0.25, "afrac_loctypes": ""},
    "all kept": {"afrac": 1.0},
    "tied": {"tied_unembed": True},
    "bigram": {"enable_bigram_table": True, "learnable_bigram_table": True},
    "fixed bigram": {"enable_bigram_table": True, "learnable_bigram_table": False},
    "positions beside": {"d_pos_emb": 6},
    "positions beside, sparse": {"d_pos_emb": 6, "afrac": 0.25, "afrac_loctypes": ALL},
    "positions beside, layer norm": {"d_pos_emb": 6, "rms_norm": False},
    "sinusoids beside": {"d_pos_emb": 6, "sinusoidal_cat_pos_emb": True},
    "odd sinusoids beside": {"d_pos_emb": 5, "sinusoidal_cat_pos_emb": True},
    "sinusoids asked for without a width": {"sinusoidal_cat_pos_emb": True},
    "sink": {"sink": True},
    "relu": {"activation_type": "relu"},
    "relu on the stream": {"residual_activation_type": "relu"},
    "relu and AbsTopK on the stream": {
        "residual_activation_type": "relu",
        "afrac": 0.25,
        "afrac_loctypes": "resid_post_attn,resid_post_mlp",
    },
    "old name of d_mlp": {"n_mlp": 40},
    "narrow MLP": {"d_mlp": 24},
    "wide heads": {"d_head": 12, "sink": True, "afrac": 0.25, "afrac_loctypes": ALL},
    "one layer, odd heads": {"n_layer": 1, "n_head": 3, "d_head": 5},
}


def variant(name: str) -> dict[str, Any]:
    merged = BASE | VARIANTS[name]
    return {field: value for field, value in merged.items() if value is not None}


def tokens(config: dict[str, Any]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, config["vocab_size"], (2, 8), generator=generator)


@pytest.fixture(scope="module")
def example() -> dict[str, Tensor]:
    with np.load(EXAMPLE / "io.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def test_example_has_the_expected_logits_loss_and_activations(example):
    model = load_openai(EXAMPLE)
    names = [name.removeprefix("hook/") for name in example if name.startswith("hook/")]
    assert len(names) == 23
    logits, values = model.run_with_cache(example["idx"], names)
    torch.testing.assert_close(logits, example["logits"], atol=1e-5, rtol=0)
    for name in names:
        torch.testing.assert_close(values[name], example[f"hook/{name}"], atol=1e-5, rtol=0)
    short = model(example["idx"][:, :9])
    torch.testing.assert_close(short, example["logits_first9tokens"], atol=1e-5, rtol=0)
    loss = model.transformer.loss(example["idx"], example["targets"])
    torch.testing.assert_close(loss, example["loss"], atol=1e-5, rtol=0)


def test_example_agrees_more_tightly_in_float64(example):
    transformer = load_openai(EXAMPLE).transformer.double()
    logits = transformer(example["idx"])
    torch.testing.assert_close(logits, example["logits_f64"], atol=1e-12, rtol=0)
    loss = transformer.loss(example["idx"], example["targets"])
    torch.testing.assert_close(loss, example["loss_f64"], atol=1e-12, rtol=0)


def test_example_has_the_expected_gradients(example):
    transformer = load_openai(EXAMPLE).transformer
    transformer.loss(example["idx"], example["targets"]).backward()
    ours = {
        "transformer.h.1.attn.c_attn.weight": "blocks.1.attn.qkv.weight",
        "transformer.h.1.attn.c_attn.bias": "blocks.1.attn.qkv.bias",
        "transformer.h.0.attn.c_proj.weight": "blocks.0.attn.out.weight",
        "transformer.h.0.attn.c_proj.bias": "blocks.0.attn.out.bias",
        "transformer.h.0.attn.attn_imp.sink_logit": "blocks.0.attn.sink",
        "transformer.h.1.attn.attn_imp.sink_logit": "blocks.1.attn.sink",
        "transformer.h.0.mlp.c_fc.weight": "blocks.0.mlp.up.weight",
        "transformer.h.0.mlp.c_fc.bias": "blocks.0.mlp.up.bias",
        "transformer.h.1.mlp.c_proj.weight": "blocks.1.mlp.down.weight",
        "transformer.h.1.mlp.c_proj.bias": "blocks.1.mlp.down.bias",
        "transformer.h.0.ln_1.weight": "blocks.0.norm1.weight",
        "transformer.h.1.ln_2.weight": "blocks.1.norm2.weight",
        "transformer.ln_f.weight": "norm.weight",
        "transformer.wte.weight": "embed.weight",
        "transformer.wpe.weight": "positions.weight",
        "lm_head.weight": "unembed.weight",
        "bigram_table": "bigram",
    }
    for theirs, name in ours.items():
        gradient = transformer.get_parameter(name).grad
        expected = example[f"grad_rows4/{theirs}"]
        torch.testing.assert_close(present(gradient)[:4], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_computes_what_the_format_says(name, tmp_path):
    config = variant(name)
    state = random_state(config)
    idx = tokens(config)
    reference = Reference(config, state)
    expected = reference.logits(idx)
    model = load_openai(write(tmp_path / "model", config, state))
    logits, values = model.run_with_cache(idx, reference.sites)
    torch.testing.assert_close(logits.double(), expected, atol=1e-5, rtol=0)
    for site, value in reference.sites.items():
        torch.testing.assert_close(values[site].double(), value, atol=1e-5, rtol=0)
    precise, values = model.transformer.double().record(idx, reference.sites)
    torch.testing.assert_close(precise, expected, atol=1e-11, rtol=0)
    for site, value in reference.sites.items():
        torch.testing.assert_close(values[site], value, atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", ["dense", "tied", "odd sinusoids beside", "fixed bigram"])
def test_what_was_read_can_be_saved_and_loaded_as_ours(name, tmp_path):
    config = variant(name)
    model = load_openai(write(tmp_path / "theirs", config, random_state(config)))
    ours = ww.load(model.save(tmp_path / "ours"))
    assert ours.config == model.config
    assert torch.equal(ours(tokens(config)), model(tokens(config)))


def test_missing_bias_on_the_logits_means_zeros(tmp_path):
    state = random_state(BASE)
    del state["final_logits_bias"]
    model = load_openai(write(tmp_path, BASE, state))
    expected = Reference(BASE, state).logits(tokens(BASE))
    torch.testing.assert_close(model(tokens(BASE)).double(), expected, atol=1e-5, rtol=0)


def test_fixed_bigram_is_not_trained(tmp_path):
    config = variant("fixed bigram")
    model = load_openai(write(tmp_path, config, random_state(config)))
    assert not present(model.transformer.bigram).requires_grad


def test_mask_buffers_of_slow_attention_are_ignored(tmp_path):
    state = random_state(BASE)
    expected = Reference(BASE, state).logits(tokens(BASE))
    state["transformer.h.1.attn.bias"] = torch.ones(12, 12).tril()[None, None]
    model = load_openai(write(tmp_path, BASE | {"flash": False}, state))
    torch.testing.assert_close(model(tokens(BASE)).double(), expected, atol=1e-5, rtol=0)


def test_tied_file_may_hold_the_matrix_once_but_not_two_matrices(tmp_path):
    config = BASE | {"tied_unembed": True}
    state = random_state(config)
    both = load_openai(write(tmp_path / "both", config, state))(tokens(config))
    for name in ("lm_head.weight", "transformer.wte.weight"):
        rest = {key: value for key, value in state.items() if key != name}
        assert torch.equal(load_openai(write(tmp_path, config, rest))(tokens(config)), both)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    write(tmp_path, config, state)
    with pytest.raises(InputError, match=r"tied_unembed is true, but transformer\.wte.* differ"):
        load_openai(tmp_path)


def test_sparse_tensors_and_half_precision_are_read(tmp_path):
    state = {name: tensor.half() for name, tensor in random_state(BASE).items()}
    expected = load_openai(write(tmp_path / "half", BASE, state))
    name = "transformer.h.0.mlp.c_fc.weight"
    state[name] = state[name].to_sparse()
    got = load_openai(write(tmp_path / "sparse", BASE, state))
    assert got.fingerprint == expected.fingerprint
    assert got(tokens(BASE)).dtype == torch.float32


def test_file_of_the_format_before_pytorch_1_6_is_read(tmp_path):
    state = random_state(BASE)
    expected = load_openai(write(tmp_path, BASE, state)).fingerprint
    torch.save(state, tmp_path / "final_model.pt", _use_new_zipfile_serialization=False)
    assert load_openai(tmp_path).fingerprint == expected


def test_unknown_fields_are_named_in_a_warning_and_known_idle_ones_are_not(tmp_path, capsys):
    config = BASE | {"zeta": 1, "alpha": None}
    write(tmp_path, config, random_state(BASE))
    load_openai(tmp_path)
    assert "beeg_config.json: unknown fields are ignored: alpha, zeta" in capsys.readouterr().err
    idle = {"dropout": 0.1, "dropout_cat_pos_emb": True, "tokenizer_name": "tinypython_2k"}
    idle |= {"flash": True, "grad_checkpointing": True, "debug_nans": False}
    idle |= {"enable_sparse_kernels": False, "use_tied_aux_matrix": False}
    write(tmp_path, BASE | idle, random_state(BASE))
    load_openai(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_tied_aux_matrix": True}, "use_tied_aux_matrix are not supported"),
        ({"n_layer": None}, "n_layer: "),
        ({"n_layer": "two"}, "n_layer: .* got 'two'"),
        ({"vocab_size": 0}, "vocab_size: .* got 0"),
        ({"activation_type": "swish"}, "activation_type: .* got 'swish'"),
        ({"residual_activation_type": "gelu"}, "residual_activation_type: "),
        ({"afrac": 1.5}, r"afrac: .* got 1\.5"),
        ({"afrac": 0.01}, r"act_fraction 0\.01 keeps nothing of attn\.act_in \(16 wide\)"),
        (
            {"afrac": 0.5, "afrac_loctypes": "attn_in,mlp_neurons"},
            "unknown afrac_loctypes 'mlp_neurons'; did you mean 'mlp_neuron'",
        ),
        ({"n_head": 3}, "d_model 16 is not divisible by n_head 3 and there is no d_head"),
    ],
)
def test_fields_that_cannot_be_used_are_one_clear_line(change, message, tmp_path):
    write(tmp_path, BASE | change, random_state(BASE))
    with pytest.raises(InputError, match=rf"beeg_config\.json: .*{message}") as caught:
        load_openai(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 3}, r"lacks the tensor transformer\.h\.2\.ln_1\.weight"),
        (
            {"n_layer": 1},
            r"the tensor transformer\.h\.1\.\S+, which the config has no part for",
        ),
        ({"sink": True}, r"lacks the tensor transformer\.h\.0\.attn\.attn_imp\.sink_logit"),
        ({"enable_bigram_table": True}, "lacks the tensor bigram_table"),
        ({"d_model": 8}, r"transformer\.wte\.weight is \(23, 16\), the config says \(23, 8\)"),
        ({"block_size": 99}, r"transformer\.wpe\.weight is \(12, 16\), the config says \(99, 16\)"),
        ({"d_pos_emb": 16}, r"transformer\.h\.0\.ln_p1\.weight"),
        ({"bias": False}, r"has the tensor transformer\.h\.0\.attn\.c_attn\.bias"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(change, message, tmp_path):
    write(tmp_path, BASE | change, random_state(BASE))
    with pytest.raises(InputError, match=message) as caught:
        load_openai(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["beeg_config.json", "final_model.pt"])
def test_missing_file_is_named(name, tmp_path):
    write(tmp_path, BASE, random_state(BASE))
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"cannot read .*{name}: No such file"):
        load_openai(tmp_path)


def test_address_is_not_fetched():
    with pytest.raises(InputError, match="nothing is downloaded"):
        load_openai("https://example.org/models/csp_yolo1")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'"text"'])
def test_config_that_is_no_object_is_refused(content, tmp_path):
    write(tmp_path, BASE, random_state(BASE))
    (tmp_path / "beeg_config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"beeg_config\.json"):
        load_openai(tmp_path)


def test_damaged_weights_are_one_clear_line(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "model")
    file = tmp_path / "model" / "final_model.pt"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    generator = np.random.default_rng(0)
    damaged = [whole[: len(whole) * i // 12] for i in range(12)]
    damaged += [generator.bytes(200) for _ in range(40)] + [b"\x80\x02" + generator.bytes(99)]
    damaged += [b"hello", json.dumps({"a": 1}).encode(), bytes(flipped)]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"final_model\.pt is damaged") as caught:
            load_openai(tmp_path / "model")
        assert "\n" not in str(caught.value)


class _Foreign:
    """What unpickling must never build."""


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {3: torch.ones(1)}, torch.ones(2)])
def test_file_that_is_no_state_dict_is_refused(value, tmp_path):
    write(tmp_path, BASE, {})
    torch.save(value, tmp_path / "final_model.pt")
    with pytest.raises(InputError, match="is not a state dict"):
        load_openai(tmp_path)


def test_foreign_objects_are_not_unpickled(tmp_path):
    write(tmp_path, BASE, {})
    torch.save({"object": _Foreign()}, tmp_path / "final_model.pt")
    with pytest.raises(InputError, match="damaged or not a PyTorch state dict") as caught:
        load_openai(tmp_path)
    assert "\n" not in str(caught.value)


def test_tokeniser_beside_the_model_is_read(tmp_path):
    folder = write(tmp_path, BASE | {"vocab_size": 257}, random_state(BASE | {"vocab_size": 257}))
    assert load_openai(folder).tokenizer is None
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    vocab = {name: i for i, name in enumerate([*names, "<|endoftext|>"])}
    (folder / "encoder.json").write_text(json.dumps(vocab))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    tokenizer = load_openai(folder).tokenizer
    assert tokenizer is not None
    assert tokenizer.eot == 256
    assert tokenizer.decode(tokenizer.encode("x = 1\n")) == "x = 1\n"


def test_sinusoids_of_our_own_are_those_of_the_released_code():
    config = ww.ModelConfig(
        vocab_size=5, n_ctx=32, n_layer=1, d_model=16, positions="sinusoidal_concat", d_pos=6
    )
    vectors = present(ww.Transformer(config).positions).weight
    for t in (0, 3, 31):
        for j, period in enumerate((4.0, math.sqrt(4 * 32), 32.0)):
            angle = 2 * math.pi * t / period
            assert vectors[t, j].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert vectors[t, 3 + j].item() == pytest.approx(math.cos(angle), abs=1e-5)
