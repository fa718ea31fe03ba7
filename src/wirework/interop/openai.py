"""The released models of Gao et al. 2025: a folder with `beeg_config.json` and `final_model.pt`.

On the hub the same model is `config.json` and safetensors, with more fields and longer names. All
variants that their code can write are supported (openai/circuit_sparsity, `inference/gpt.py`).
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

_SITES: dict[str, SiteKind] = {
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

_CAUSAL_MASK = re.compile(r"transformer\.h\.\d+\.attn\.bias")  # a constant, saved without `flash`

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

_HUB_PREFIX = "circuit_model."
_OF_THE_HUB = {
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
"""Fields that transformers adds, which are irrelevant to the model or repeat other fields."""


class _OpenAIFields(Config):
    """The fields of `beeg_config.json` that affect the computation, with their defaults."""

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
    """Return whether the fields of a `config.json` are those of a model of Gao et al. 2025."""
    return isinstance(values, dict) and "afrac_loctypes" in values and "block_size" in values


def load_openai(path: str | Path, split: SplitPattern | None = None) -> Model:
    """Load a released model of Gao et al. 2025, or one saved in their format.

    Args:
        path: a folder with `beeg_config.json` and `final_model.pt`, or as it is on the hub, with
            `config.json` and `model.safetensors`; nothing is downloaded, and no code in it runs. A
            tokeniser beside them (`encoder.json` and `vocab.bpe`, or `tokenizer.json`) is read too.
        split: split pattern of `encoder.json` and `vocab.bpe`, `gpt2` or `tinypython`; None to
            infer it from the vocabulary.

    Returns:
        The model on the CPU in float32, with our sites. A warning names unknown fields of the
        config and unused tensors.

    Raises:
        InputError: a file is missing, damaged or foreign, a field cannot be used, or a tensor is
            missing, unexpected, of the wrong shape or not finite.

    Source: Gao et al. 2025, App. A.1, and their released code.
    """
    if "://" in str(path):
        raise InputError(
            f"{path} is an address and nothing is downloaded: "
            "fetch beeg_config.json and final_model.pt into a folder and give that"
        )
    folder = Path(path)
    about, weights = _find_files(folder)
    released = _read_config(about)
    config = _our_config(released, about)
    check_memory(config, None, str(about))
    state = unwrapped(read_weights(weights), str(weights), _HUB_PREFIX)
    refuse_layers(config.n_layer, state, str(weights))
    config = config.model_copy(update={"logit_bias": "final_logits_bias" in state})
    if config.tied_embedding:
        said = "tied_unembed is true"
        state = with_tied(state, "transformer.wte.weight", "lm_head.weight", str(weights), said)
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
    """Return the paths of config and weights, in the layout of the release or of the hub."""
    about, hub = folder / "beeg_config.json", folder / "config.json"
    if is_file(about) or not is_file(hub):
        weights = folder / "final_model.pt"
        if is_file(weights) or not is_file(folder / "model.safetensors"):
            return about, weights
        return about, folder / "model.safetensors"
    if not is_openai(read_json(hub)):
        raise InputError(f"{hub} is not of a released weight-sparse model: it lacks their fields")
    return hub, find_weights(folder, ("model.safetensors", "pytorch_model.bin", "final_model.pt"))


def _read_config(path: Path) -> _OpenAIFields:
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object of fields, got {type(values).__name__}")
    if values.pop("use_tied_aux_matrix", False):
        raise InputError(f"{path}: models with use_tied_aux_matrix are not supported")
    if "n_mlp" in values:  # older files
        values["d_mlp"] = values.pop("n_mlp")
    idle = _NO_EFFECT | (_OF_THE_HUB if "model_type" in values else set())
    unknown = sorted(values.keys() - _OpenAIFields.model_fields.keys() - idle)
    if unknown:
        warn(f"{path}: unknown fields left aside: {', '.join(unknown)}")
    values_read = {
        name: value for name, value in values.items() if name in _OpenAIFields.model_fields
    }
    return _OpenAIFields.of(values_read, str(path))


def _our_config(released: _OpenAIFields, path: Path) -> ModelConfig:
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
    if released.d_pos_emb is None:
        return "added"
    return "sinusoidal_concat" if released.sinusoidal_cat_pos_emb else "concat"


def _act_sites(released: _OpenAIFields, path: Path) -> tuple[SiteKind, ...]:
    if released.afrac is None or not released.afrac_loctypes:
        return ()
    names = released.afrac_loctypes.split(",")
    for name in names:
        if name not in _SITES:
            raise InputError(f"{path}: unknown afrac_loctypes {name!r}{nearest(name, _SITES)}")
    return tuple(site for name, site in _SITES.items() if name in names)


def _their_name(name: str) -> str:
    """Return their name of one of our tensors: `blocks.0.mlp.up.bias`, `..h.0.mlp.c_fc.bias`."""
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    if kind in ("weight", "bias"):
        return f"{prefix}{_TENSORS[part]}.{kind}"
    return prefix + _TENSORS[name]
