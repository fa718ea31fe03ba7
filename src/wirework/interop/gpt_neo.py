"""GPT-Neo: the names of its tensors, and which of our models can be written as one.

Used for the released self-ablating models and for Hugging Face models.
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

GPT_NEO_PARTS = frozenset([*_TENSORS.values(), *(f"attn.attention.{one}_proj" for one in "qkv")])
"""Names, without layer and kind, of all tensors that such a model may have."""

GPT_NEO_FIELDS = {
    "vocab_size": "vocab_size",
    "n_ctx": "max_position_embeddings",
    "n_layer": "num_layers",
    "d_model": "hidden_size",
    "n_head": "num_heads",
    "d_mlp": "intermediate_size",
}
"""Our names of the size settings to GPT-Neo's names; without `d_mlp`, it is 4 d_model."""

IGNORED = re.compile(r"transformer\.h\.\d+\.attn\.attention\.(bias|masked_bias)")
"""Causal masks, constants that older versions saved."""


def gpt_neo_names(name: str) -> list[str]:
    """Return GPT-Neo's names of one of our tensors; its queries, keys and values are separate."""
    prefix, name = block_prefix(name)
    part, _, kind = name.rpartition(".")
    if part == "attn.qkv":
        return [f"{prefix}attn.attention.{one}_proj.{kind}" for one in "qkv"]
    return [f"{prefix}{_TENSORS[part]}.{kind}"]


def gpt_neo_config(theirs: Config, fields: Mapping[str, str], source: str) -> ModelConfig:
    """Return our settings of a GPT-Neo, without the attention windows.

    Args:
        theirs: settings in its own format.
        fields: our names of the size settings to its names, such as `GPT_NEO_FIELDS`.
        source: origin of the settings, for messages.

    Raises:
        InputError: the settings are impossible, such as heads that do not divide the width.
    """
    shape = {ours: getattr(theirs, name) for ours, name in fields.items()}
    d_model, n_head = shape["d_model"], shape["n_head"]
    if d_model % n_head:
        raise InputError(
            f"{source}: a width of {d_model} does not divide into {number_of(n_head, 'head')}"
        )
    shape |= {"d_head": d_model // n_head, "d_mlp": shape["d_mlp"] or 4 * d_model}
    return ModelConfig.of({**_KIND, **shape}, source)


def windows_of(
    kinds: list[str] | None, window: int, n_layer: int, source: str
) -> tuple[int | None, ...] | None:
    """Return the window of each layer from its kind, `global` or `local`; None if all are global.

    Raises:
        InputError: another kind, or another number of layers.
    """
    if kinds is None:
        return None
    strange = [kind for kind in kinds if kind not in ("global", "local")]
    if strange or len(kinds) != n_layer:
        raise InputError(
            f"{source}: attention_layers must be {n_layer} of 'global' and 'local', "
            f"got {len(kinds)}: {quoted(kinds)}"
        )
    return (
        tuple(window if kind == "local" else None for kind in kinds) if "local" in kinds else None
    )


def refuse_other_kinds(config: ModelConfig) -> None:
    """Raise an InputError with the first difference if a config of ours is not a GPT-Neo."""
    wanted = {**_KIND, "d_head": config.d_model // max(config.n_head, 1)}
    values = config.model_dump()
    for name, value in wanted.items():
        if name != "norm_eps" and values[name] != value:  # GPT-Neo accepts any epsilon
            raise InputError(f"not a GPT-Neo: {name} is {values[name]!r}, there it is {value!r}")
    windows = {window for window in config.attention_windows or () if window is not None}
    if len(windows) > 1:
        raise InputError(f"not a GPT-Neo: its layers have windows of {sorted(windows)}, there one")


_KIND = {
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
