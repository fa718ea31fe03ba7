"""GPT-Neo: the names of its settings and tensors, and which of our models it can represent.

The released self-ablating models and one kind of Hugging Face model have this architecture.
"""

import re
from collections.abc import Mapping

from wirework.config import Config, ModelConfig
from wirework.errors import InputError, number_of, quoted
from wirework.interop.weights import block_prefix

_TENSORS = {
    "embed": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "unembed": "lm_head",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attn.out": "attn.attention.out_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
"""Our names of the parts that have tensors, to GPT-Neo's; without layer, `.weight` and `.bias`."""

GPT_NEO_PARTS = frozenset([*_TENSORS.values(), *(f"attn.attention.{part}_proj" for part in "qkv")])
"""Names of all tensors that such a model may have, without layer, `.weight` and `.bias`."""

GPT_NEO_FIELDS = {
    "vocab_size": "vocab_size",
    "n_ctx": "max_position_embeddings",
    "n_layer": "num_layers",
    "d_model": "hidden_size",
    "n_head": "num_heads",
    "d_mlp": "intermediate_size",
}
"""Our names of the size settings to GPT-Neo's names. `d_mlp` may be absent: 4 d_model."""

IGNORED = re.compile(r"transformer\.h\.\d+\.attn\.attention\.(bias|masked_bias)")
"""Causal masks: constants that older versions of transformers saved."""


def gpt_neo_names(name: str) -> list[str]:
    """Return GPT-Neo's names of one of our tensors.

    There are three for the matrix of queries, keys and values, which GPT-Neo has as three matrices.
    """
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    if part == "attn.qkv":
        return [f"{prefix}attn.attention.{letter}_proj.{kind}" for letter in "qkv"]
    return [f"{prefix}{_TENSORS[part]}.{kind}"]


def gpt_neo_config(theirs: Config, fields: Mapping[str, str], source: str) -> ModelConfig:
    """Return our settings for a GPT-Neo, without the attention windows.

    Args:
        theirs: settings in its own format.
        fields: our names of the size settings to its names, such as `GPT_NEO_FIELDS`.
        source: origin of the settings, for messages.

    Raises:
        InputError: the settings are impossible, such as a width that is not divisible by the heads.
    """
    sizes = {ours: getattr(theirs, name) for ours, name in fields.items()}
    d_model, n_head = sizes["d_model"], sizes["n_head"]
    if d_model % n_head:
        raise InputError(
            f"{source}: a width of {d_model} cannot be divided into {number_of(n_head, 'head')}"
        )
    sizes |= {"d_head": d_model // n_head, "d_mlp": sizes["d_mlp"] or 4 * d_model}
    return ModelConfig.of({**_COMMON, **sizes}, source)


def windows_of(
    kinds: list[str] | None, window: int, n_layer: int, source: str
) -> tuple[int | None, ...] | None:
    """Return the attention window of each layer, in tokens.

    Args:
        kinds: kind of attention of each layer, `global` or `local`; None if all are global.
        window: tokens that a token of a local layer attends to.
        n_layer: number of layers.
        source: origin of the settings, for messages.

    Returns:
        A window per layer, None for a global layer; or None if all layers are global.

    Raises:
        InputError: there is another kind, or another number of layers.
    """
    if kinds is None:
        return None
    are_known = all(kind in ("global", "local") for kind in kinds)
    if not are_known or len(kinds) != n_layer:
        raise InputError(
            f"{source}: attention_layers must be {n_layer} of 'global' and 'local', "
            f"got {len(kinds)}: {quoted(kinds)}"
        )
    return (
        tuple(window if kind == "local" else None for kind in kinds) if "local" in kinds else None
    )


def refuse_other_kinds(config: ModelConfig) -> None:
    """Refuse a model that has parts or settings which a GPT-Neo cannot have.

    Raises:
        InputError: the message names the first difference.
    """
    required = {**_COMMON, "d_head": config.d_model // max(config.n_head, 1)}
    values = config.model_dump()
    for name, value in required.items():
        if name != "norm_eps" and values[name] != value:  # GPT-Neo accepts any epsilon
            raise InputError(
                f"this model is not a GPT-Neo: its {name} is {values[name]!r}, "
                f"that of a GPT-Neo is {value!r}"
            )
    windows = {window for window in config.attention_windows or () if window is not None}
    if len(windows) > 1:
        raise InputError(
            f"this model is not a GPT-Neo: its layers have attention windows of {sorted(windows)} "
            "tokens, all windows of a GPT-Neo have the same size"
        )


_COMMON = {
    "activation": "gelu_tanh",
    "norm": "layer",
    "norm_eps": 1e-5,
    "norm_bias": True,
    "positions": "added",
    "d_pos": None,
    "attention_scale": "none",
    "qkv_bias": False,
    "bias": True,
    "tied_embedding": True,
    "sinks": False,
    "bigram": False,
    "logit_bias": False,
    "residual_activation": "identity",
    "act_fraction": None,
}
"""Settings that all GPT-Neo models have in common (Ferrao et al. 2025, sec. 2)."""
