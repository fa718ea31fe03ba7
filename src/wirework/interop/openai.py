"""Read the released weight-sparse models of Gao et al. 2025.

Two layouts of the files are read:

- The release: a folder with `beeg_config.json` and `final_model.pt`.
- The Hugging Face hub: `config.json` and safetensors, with more fields and longer tensor names.

All variants that their code can write are supported (openai/circuit_sparsity, `inference/gpt.py`).
Settings that only affect training, such as dropout and gradient checkpointing, are ignored.
"""

import re
from pathlib import Path
from typing import Any, Literal

from wirework.config import Config, Count, Fraction, ModelConfig, SiteKind
from wirework.console import warn
from wirework.data.tokenizer_files import SplitPattern
from wirework.errors import InputError, nearest
from wirework.files import is_file, read_json
from wirework.interop.foreign_tokenizer import read_tokenizer
from wirework.interop.weight_files import find_weights, read_weights
from wirework.interop.weights import block_prefix, our_state, unwrapped, with_tied
from wirework.model import Model
from wirework.model_tensors import load_untied_, refuse_layers
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory, untied_shapes

_SITE_OF_LOCATION: dict[str, SiteKind] = {
    "attn_in": "attn.act_in",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_out": "attn.resid_delta",
    "mlp_in": "mlp.act_in",
    "mlp_neuron": "mlp.post_act",
    "mlp_out": "mlp.resid_delta",
    "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_out",
}
"""Their names of the places where AbsTopK can act (`afrac_loctypes`), to our sites."""

_TENSORS = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "unembed": "lm_head",
    "bigram": "bigram_table",
    "logit_bias": "final_logits_bias",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "pos_norm1": "ln_p1",
    "pos_norm2": "ln_p2",
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "attn.sink": "attn.attn_imp.sink_logit",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
"""Our names of the parts that have tensors, to theirs; without layer, `.weight` and `.bias`."""

_CAUSAL_MASK = re.compile(r"transformer\.h\.\d+\.attn\.bias")
"""The causal mask, a constant that their code saves if the setting `flash` is off."""

_NO_EFFECT = {
    "bigram_table_rank",
    "debug_nans",
    "dropout",
    "dropout_cat_pos_emb",
    "enable_sparse_kernels",
    "flash",
    "grad_checkpointing",
    "tokenizer_name",
}
"""Fields that do not affect what a trained model computes."""

_HUB_PREFIX = "circuit_model."
"""Prefix of all tensor names in the layout of the hub."""
_HUB_FIELDS = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "hidden_size",
    "is_decoder",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Fields that transformers adds; they do not affect the model, or repeat other fields."""


class _OpenAIFields(Config):
    """The fields of their configuration that affect the computation, with their defaults."""

    vocab_size: Count
    block_size: Count
    n_layer: Count
    n_head: Count
    d_model: Count
    d_head: Count | None = None
    d_mlp: Count | None = None
    bias: bool = True
    ln_bias: bool = True
    rms_norm: bool = False
    residual_activation_type: Literal["identity", "relu"] = "identity"
    activation_type: Literal["gelu", "relu"] = "gelu"
    afrac: Fraction | None = None
    afrac_loctypes: str = "attn_in,attn_out,mlp_in,mlp_out"
    tied_unembed: bool = True
    enable_bigram_table: bool = False
    learnable_bigram_table: bool = False
    d_pos_emb: Count | None = None
    sinusoidal_cat_pos_emb: bool = False
    sink: bool = False


def is_openai(values: Any) -> bool:
    """Return whether the content of a `config.json` is that of a model of Gao et al. 2025.

    Args:
        values: the parsed file.
    """
    return isinstance(values, dict) and "afrac_loctypes" in values and "block_size" in values


def load_openai(path: str | Path, split: SplitPattern | None = None) -> Model:
    """Load a released model of Gao et al. 2025, or one saved in their format.

    Args:
        path: a folder with `beeg_config.json` and `final_model.pt`, or with `config.json` and
            `model.safetensors` as on the hub. Nothing is downloaded, and no code in the folder
            runs. A tokeniser in it (`encoder.json` and `vocab.bpe`, or `tokenizer.json`) is read
            too.
        split: split pattern of `encoder.json` and `vocab.bpe`, `gpt2` or `tinypython`; None to
            infer it from the vocabulary.

    Returns:
        The model on the CPU in float32. A warning names unknown fields of the configuration and
        unused tensors.

    Raises:
        InputError: a file is missing, damaged or foreign, a field cannot be used, or a tensor is
            missing, unexpected, of the wrong shape or not finite.

    Source: Gao et al. 2025, App. A.1, and their released code.
    """
    if "://" in str(path):
        raise InputError(
            f"{path} is a web address, and nothing is downloaded: "
            "put beeg_config.json and final_model.pt into a folder and give its path"
        )
    folder = Path(path)
    config_file, weights = _find_files(folder)
    config = _our_config(_read_config(config_file), config_file)
    check_memory(config, None, str(config_file))
    state = unwrapped(read_weights(weights), str(weights), _HUB_PREFIX)
    refuse_layers(config.n_layer, state, str(weights))
    config = config.model_copy(update={"logit_bias": "final_logits_bias" in state})
    if config.tied_embedding:
        names = "transformer.wte.weight", "lm_head.weight"
        state = with_tied(state, *names, str(weights), "tied_unembed is true")
    tensors = our_state(
        state,
        untied_shapes(config),
        lambda name: [_their_name(name)],
        str(weights),
        _CAUSAL_MASK,
        frozenset(_TENSORS.values()),
    )
    transformer = Transformer(config)
    load_untied_(transformer, tensors)
    return Model(transformer, read_tokenizer(folder, split), folder)


def _find_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of configuration and weights, in the layout of the release or of the hub.

    Files that do not exist are those of the release, so that the error about them names these.

    Raises:
        InputError: there is only a `config.json`, and it is that of another kind of model.
    """
    release, hub = folder / "beeg_config.json", folder / "config.json"
    if is_file(release) or not is_file(hub):
        pickle, safetensors = folder / "final_model.pt", folder / "model.safetensors"
        is_safe = is_file(safetensors) and not is_file(pickle)
        return release, safetensors if is_safe else pickle
    if not is_openai(read_json(hub)):
        raise InputError(
            f"{hub} is not that of a weight-sparse model: "
            "the field afrac_loctypes or block_size is missing"
        )
    return hub, find_weights(folder, ("model.safetensors", "pytorch_model.bin", "final_model.pt"))


def _read_config(path: Path) -> _OpenAIFields:
    """Read their configuration; a warning names fields that are unknown."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object of fields, got {type(values).__name__}")
    if values.pop("use_tied_aux_matrix", False):
        raise InputError(f"{path}: models with use_tied_aux_matrix are not supported")
    if "n_mlp" in values:  # the name in older files
        values["d_mlp"] = values.pop("n_mlp")
    known = _OpenAIFields.model_fields.keys()
    ignored = _NO_EFFECT | (_HUB_FIELDS if "model_type" in values else set())
    if unknown := sorted(values.keys() - known - ignored):
        warn(f"{path}: unknown fields are ignored: {', '.join(unknown)}")
    return _OpenAIFields.of({name: values[name] for name in values if name in known}, str(path))


def _our_config(released: _OpenAIFields, path: Path) -> ModelConfig:
    """Translate their configuration into ours.

    Raises:
        InputError: d_model is not divisible by n_head, or AbsTopK acts at an unknown location.
    """
    if released.d_head is None and released.d_model % released.n_head:
        raise InputError(
            f"{path}: d_model {released.d_model} is not divisible by n_head {released.n_head} "
            "and there is no d_head"
        )
    values: dict[str, Any] = {
        "vocab_size": released.vocab_size,
        "n_ctx": released.block_size,
        "n_layer": released.n_layer,
        "d_model": released.d_model,
        "n_head": released.n_head,
        "d_head": released.d_head or released.d_model // released.n_head,
        "d_mlp": released.d_mlp or 4 * released.d_model,
        "activation": released.activation_type,
        "norm": "rms" if released.rms_norm else "layer",
        "norm_bias": released.ln_bias,
        "positions": _positions(released),
        "d_pos": released.d_pos_emb,
        "qkv_bias": released.bias,
        "bias": released.bias,
        "tied_embedding": released.tied_unembed,
        "sinks": released.sink,
        "bigram": released.enable_bigram_table,
        "learn_bigram": released.learnable_bigram_table,
        "residual_activation": released.residual_activation_type,
        "act_fraction": released.afrac,
        "act_sites": _act_sites(released, path),
    }
    return ModelConfig.of(values, str(path))


def _positions(released: _OpenAIFields) -> str:
    """Return our setting `positions`."""
    if released.d_pos_emb is None:
        return "added"
    return "sinusoidal_concat" if released.sinusoidal_cat_pos_emb else "concat"


def _act_sites(released: _OpenAIFields, path: Path) -> tuple[SiteKind, ...]:
    """Return the sites with AbsTopK."""
    if released.afrac is None or not released.afrac_loctypes:
        return ()
    names = released.afrac_loctypes.split(",")
    for name in names:
        if name not in _SITE_OF_LOCATION:
            hint = nearest(name, _SITE_OF_LOCATION)
            raise InputError(f"{path}: unknown afrac_loctypes {name!r}{hint}")
    return tuple(site for name, site in _SITE_OF_LOCATION.items() if name in names)


def _their_name(name: str) -> str:
    """Return their name of one of our tensors.

    For example, `blocks.0.mlp.up.bias` is `transformer.h.0.mlp.c_fc.bias`.
    """
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    if kind in ("weight", "bias"):
        return f"{prefix}{_TENSORS[part]}.{kind}"
    return prefix + _TENSORS[name]
