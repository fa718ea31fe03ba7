"""GPT-2 and GPT-Neo: read their `config.json`, and name their tensors.

Missing fields have the defaults of transformers, which does not write defaults to its files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from wirework.config import Config, Count, ModelConfig
from wirework.errors import InputError, number_of, quoted
from wirework.interop.gpt_neo import (
    GPT_NEO_FIELDS,
    GPT_NEO_PARTS,
    IGNORED,
    gpt_neo_config,
    gpt_neo_names,
    windows_of,
)
from wirework.interop.weights import block_prefix

_GPT2_TENSORS = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "unembed": "lm_head",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_GPT2_FIELDS = {
    "vocab_size": "vocab_size",
    "n_ctx": "n_positions",
    "n_layer": "n_layer",
    "d_model": "n_embd",
    "n_head": "n_head",
    "d_mlp": "n_inner",
}
_GPT2_IGNORED = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_Epsilon = Annotated[float, Field(gt=0)]


class _Either(Config):
    """Fields that both architectures have."""

    vocab_size: Count = 50257
    activation_function: str = "gelu_new"
    layer_norm_epsilon: _Epsilon = 1e-5
    tie_word_embeddings: bool = True


class _Gpt2(_Either):
    """Fields of a GPT-2 that affect the computation."""

    n_positions: Count = 1024
    n_embd: Count = 768
    n_layer: Count = 12
    n_head: Count = 12
    n_inner: Count | None = None
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False


class _GptNeo(_Either):
    """Fields of a GPT-Neo that affect the computation."""

    max_position_embeddings: Count = 2048
    hidden_size: Count = 2048
    num_layers: Count = 24
    num_heads: Count = 16
    intermediate_size: Count | None = None
    attention_types: tuple[tuple[tuple[str, ...], Count], ...] = ((("global", "local"), 12),)
    window_size: Count = 256


_OTHER_NAMES = {
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "gpt_neo": {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
}
"""By architecture: other names under which transformers accepts a field."""


@dataclass(frozen=True)
class Architecture:
    """How to read a Hugging Face model."""

    config: ModelConfig
    """Our settings, without the attention windows."""
    names: Callable[[str], Sequence[str]]
    """Function from our name of a tensor to their names."""
    parts: frozenset[str]
    """Names of all tensors that such a model may have, without layer, `.weight` and `.bias`."""
    ignored: re.Pattern[str]
    """Pattern of their tensors that may be ignored without a warning."""
    is_transposed: Callable[[str], bool]
    """Whether a matrix is stored with inputs as rows."""
    kinds: Sequence[tuple[tuple[str, ...], int]] | None = None
    """Lists of attention kinds (`global`, `local`) with their repetitions; None: all global."""
    window: int = 1
    """Positions that a token attends to in a layer with local attention."""

    def with_windows(self, source: str) -> ModelConfig:
        """Return `config` with the attention windows.

        Raises:
            InputError: a kind of attention is unknown, or their number is not that of the layers.
        """
        if self.kinds is None:
            return self.config
        n_layer = self.config.n_layer
        count = sum(len(kinds) * times for kinds, times in self.kinds)
        if count != n_layer:
            raise InputError(
                f"{source}: attention_types describe {number_of(count, 'layer')}, not {n_layer}"
            )
        kind_by_layer = [kind for kinds, times in self.kinds for kind in kinds * times]
        windows = windows_of(kind_by_layer, self.window, n_layer, source)
        return self.config.model_copy(update={"attention_windows": windows})


def architecture(values: Any, source: str) -> Architecture:
    """Return how to read a model from the fields of its `config.json`.

    Args:
        values: the fields.
        source: their origin, for messages.

    Raises:
        InputError: it is not a GPT-2 or GPT-Neo, or a field cannot be used.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected an object of fields, got {type(values).__name__}")
    kind = values.get("model_type")
    if kind == "gpt2":
        return _gpt2(_Gpt2.of(_known(values, kind, _Gpt2), source), source)
    if kind == "gpt_neo":
        return _gpt_neo(_GptNeo.of(_known(values, kind, _GptNeo), source), source)
    name = kind if isinstance(kind, str) and len(kind) < 40 else quoted(kind)
    raise InputError(f"{source} is a {name}: only gpt2 and gpt_neo can be loaded")


def _known(values: Mapping[str, Any], kind: str, fields: type[Config]) -> dict[str, Any]:
    """Return the values of known fields; a field's own name wins over its other names."""
    other_names = _OTHER_NAMES[kind]
    renamed = {other_names.get(name, name): value for name, value in values.items()}
    renamed |= {name: values[name] for name in fields.model_fields.keys() & values.keys()}
    return {name: renamed[name] for name in fields.model_fields if name in renamed}


def _gpt2(theirs: _Gpt2, source: str) -> Architecture:
    if theirs.scale_attn_by_inverse_layer_idx:
        raise InputError(f"{source} scales attention by layer, which wirework does not support")
    if theirs.add_cross_attention:
        raise InputError(f"{source} has cross-attention, which wirework does not support")
    scale = "rsqrt" if theirs.scale_attn_weights else "none"
    config = _config(theirs, _GPT2_FIELDS, source)
    return Architecture(
        config=config.model_copy(update={"attention_scale": scale, "qkv_bias": True}),
        names=_gpt2_names,
        parts=frozenset(_GPT2_TENSORS.values()),
        ignored=_GPT2_IGNORED,
        is_transposed=_is_conv1d,
    )


def _gpt_neo(theirs: _GptNeo, source: str) -> Architecture:
    return Architecture(
        config=_config(theirs, GPT_NEO_FIELDS, source),
        names=gpt_neo_names,
        parts=GPT_NEO_PARTS,
        ignored=IGNORED,
        is_transposed=lambda _: False,
        kinds=theirs.attention_types,
        window=theirs.window_size,
    )


def _config(theirs: _Either, fields: Mapping[str, str], source: str) -> ModelConfig:
    if theirs.activation_function not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise InputError(
            f"{source}: activation {quoted(theirs.activation_function)} is not supported, only "
            f"{known}"
        )
    return gpt_neo_config(theirs, fields, source).model_copy(
        update={
            "activation": _ACTIVATIONS[theirs.activation_function],
            "norm_eps": theirs.layer_norm_epsilon,
            "tied_embedding": theirs.tie_word_embeddings,
        }
    )


def _gpt2_names(name: str) -> list[str]:
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    return [f"{prefix}{_GPT2_TENSORS[part]}.{kind}"]


def _is_conv1d(name: str) -> bool:
    """Return whether GPT-2 stores this matrix with inputs as rows."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
