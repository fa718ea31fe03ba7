"""TransformerLens: read the settings and tensors of a `HookedTransformer`.

The settings are those of `HookedTransformerConfig.to_dict()`. TransformerLens itself is not needed.
Shapes: D d_model, H heads, K d_head, M d_mlp, U logits of theirs, V vocabulary of ours.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from wirework.config import Config, Count, ModelConfig
from wirework.errors import InputError, quoted
from wirework.model_tensors import as_float32, refuse_layers, refuse_missing, refuse_shapes
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory

UNUSED_LOGIT = -1e9
"""Logit of a token that the model never answers with; its probability is exactly 0."""

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_ACTIVATIONS |= {"relu": "relu"}
_NORMS = {None: "none", "LN": "layer", "LNPre": "layer", "RMS": "rms", "RMSPre": "rms"}
"""Their kinds of norm, to ours; those with `Pre` have no weights."""
_UNUSED = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE)")
"""Constants that they save: the causal mask and what stands in for minus infinity."""
_NO_EFFECT = re.compile(
    r"model_name|device|n_devices|dtype|seed|init_mode|init_weights|initializer_range|n_params"
    r"|tokenizer_name|tokenizer_prepends_bos|default_prepend_bos|original_architecture"
    r"|from_checkpoint|checkpoint_.*|use_attn_result|use_split_qkv_input|use_hook_.*|use_attn_in"
    r"|ungroup_grouped_query_attention|trust_remote_code|rotary_.*|NTK_.*|yarn_.*|window_size"
    r"|attn_types|experts_per_token|relative_attention_.*|decoder_start_token_id"
    r"|uses_rms_norm|layer_norm_folding|norm_topk_prob|train_seq_length|tie_word_embeddings"
    r"|load_in_4bit|quantization_method"
)
"""Fields that do not affect what a model of the supported kinds computes in float32."""
_OFF = (None, False, 0, -1)
"""Values of a field that say that a part is not there."""


class _LensFields(Config):
    """The fields of their configuration that affect the computation, with their defaults."""

    n_layers: Count
    d_model: Count
    d_head: Count
    n_heads: Count
    n_ctx: Count
    d_vocab: Count
    d_mlp: Count | None = None
    d_vocab_out: int = -1
    act_fn: str
    eps: float = 1e-5
    normalization_type: str | None = "LN"
    positional_embedding_type: str = "standard"
    attention_dir: Literal["causal", "bidirectional"] = "causal"
    use_attn_scale: bool = True
    attn_scale: float = -1.0
    n_key_value_heads: int | None = None


def load_lens(
    fields: Mapping[str, Any], state: Mapping[str, Tensor], source: str, weights: str
) -> tuple[Transformer, int]:
    """Return a transformer with the settings and weights of a `HookedTransformer`.

    A model that answers with fewer tokens than it reads gets the logit `UNUSED_LOGIT` for the rest;
    one that answers with more gets zero embeddings for those that it never reads.

    Args:
        fields: the settings, by TransformerLens' names.
        state: the state dict.
        source: origin of the settings, for messages.
        weights: origin of the state dict, for messages.

    Returns:
        The transformer on the CPU in float32, and U, the number of tokens that it answers with.

    Raises:
        InputError: a part is not supported or unknown, or a tensor is missing, unexpected, of the
            wrong shape or not finite.
    """
    theirs = _read_fields(fields, source)
    config, n_outputs = _our_config(theirs, source)
    check_memory(config, None, source)
    refuse_layers(config.n_layer, state, weights)
    shapes = _their_shapes(theirs, n_outputs)
    given = {name: tensor for name, tensor in state.items() if not _UNUSED.fullmatch(name)}
    unknown = sorted(given.keys() - shapes.keys())
    refuse_missing([name for name in shapes if name not in given], unknown, weights)
    if unknown:
        raise InputError(f"{weights} has the tensor {unknown[0]}, which the settings lack")
    refuse_shapes({name: given[name].shape for name in shapes}, shapes, weights)
    transformer = Transformer(config)
    transformer.load_state_dict(_our_state(as_float32(given, weights), config))
    return transformer, n_outputs


def _read_fields(fields: Mapping[str, Any], source: str) -> _LensFields:
    """Check the fields: the known ones are typed, unknown ones must be switched off."""
    for name, value in fields.items():
        known = name in _LensFields.model_fields or _NO_EFFECT.fullmatch(name)
        if not known and not any(value is off or value == off for off in _OFF):
            raise InputError(f"{source}: {name} is {quoted(value)}, which is not supported")
    known_fields = {n: v for n, v in fields.items() if n in _LensFields.model_fields}
    return _LensFields.of(known_fields, source)


def _our_config(theirs: _LensFields, source: str) -> tuple[ModelConfig, int]:
    """Translate their settings; also return the number of tokens that the model answers with.

    Raises:
        InputError: the message names the first part that is not supported.
    """
    n_outputs = theirs.d_vocab if theirs.d_vocab_out == -1 else theirs.d_vocab_out
    scale = math.sqrt(theirs.d_head)
    supported: dict[str, tuple[Any, ...]] = {
        "attention_dir": ("causal",),
        "positional_embedding_type": ("standard",),
        "normalization_type": tuple(_NORMS),
        "act_fn": tuple(_ACTIVATIONS),
        "n_key_value_heads": (None, theirs.n_heads),
        "attn_scale": (-1.0, scale) if theirs.use_attn_scale else (theirs.attn_scale,),
    }
    for name, known in supported.items():
        value = getattr(theirs, name)
        if value not in known:
            choices = " or ".join(str(one) for one in known)
            raise InputError(
                f"{source}: {name} is {quoted(value)}, which is not supported: only {choices}"
            )
    if n_outputs < 1:
        raise InputError(f"{source}: d_vocab_out must be at least 1, got {n_outputs}")
    values = {
        "vocab_size": max(theirs.d_vocab, n_outputs),
        "n_ctx": theirs.n_ctx,
        "n_layer": theirs.n_layers,
        "d_model": theirs.d_model,
        "d_head": theirs.d_head,
        "n_head": theirs.n_heads,
        "d_mlp": theirs.d_mlp or 4 * theirs.d_model,
        "activation": _ACTIVATIONS[theirs.act_fn],
        "norm": _NORMS[theirs.normalization_type],
        "norm_eps": None if theirs.normalization_type is None else theirs.eps,
        "positions": "added",
        "attention_scale": "rsqrt" if theirs.use_attn_scale else "none",
        "sinks": False,
        "bigram": False,
        "logit_bias": True,
        "act_fraction": None,
    }
    return ModelConfig.of(values, source), n_outputs


def _their_shapes(theirs: _LensFields, n_outputs: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of their tensors by name."""
    heads, width, inner = theirs.n_heads, theirs.d_model, theirs.d_head
    neurons = theirs.d_mlp or 4 * width
    norm = _norm_shapes(theirs)
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (theirs.d_vocab, width),
        "pos_embed.W_pos": (theirs.n_ctx, width),
        "unembed.W_U": (width, n_outputs),
        "unembed.b_U": (n_outputs,),
        **{f"ln_final.{name}": shape for name, shape in norm.items()},
    }
    block = {
        **{f"attn.W_{kind}": (heads, width, inner) for kind in "QKV"},
        **{f"attn.b_{kind}": (heads, inner) for kind in "QKV"},
        "attn.W_O": (heads, inner, width),
        "attn.b_O": (width,),
        "mlp.W_in": (width, neurons),
        "mlp.b_in": (neurons,),
        "mlp.W_out": (neurons, width),
        "mlp.b_out": (width,),
        **{f"ln{number}.{name}": shape for number in "12" for name, shape in norm.items()},
    }
    for layer in range(theirs.n_layers):
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def _norm_shapes(theirs: _LensFields) -> dict[str, tuple[int, ...]]:
    names = {"LN": "wb", "RMS": "w"}.get(theirs.normalization_type or "", "")
    return dict.fromkeys(names, (theirs.d_model,))


def _our_state(theirs: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors under our names, in our layout."""
    vocab, width = config.vocab_size, config.d_model
    state = {
        "embed.weight": _with_rows(theirs["embed.W_E"], vocab, 0.0),
        "positions.weight": theirs["pos_embed.W_pos"],
        "unembed.weight": _with_rows(theirs["unembed.W_U"].t(), vocab, 0.0),
        "logit_bias": _with_rows(theirs["unembed.b_U"], vocab, UNUSED_LOGIT),
        **_norm(theirs, "ln_final", "norm", config),
    }
    for layer in range(config.n_layer):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        qkv = [theirs[f"{attn}.W_{kind}"].transpose(1, 2).reshape(-1, width) for kind in "QKV"]
        state |= {
            f"{attn}.qkv.weight": torch.cat(qkv),
            f"{attn}.qkv.bias": torch.cat([theirs[f"{attn}.b_{kind}"].flatten() for kind in "QKV"]),
            f"{attn}.out.weight": theirs[f"{attn}.W_O"].flatten(0, 1).t(),
            f"{attn}.out.bias": theirs[f"{attn}.b_O"],
            f"{mlp}.up.weight": theirs[f"{mlp}.W_in"].t(),
            f"{mlp}.up.bias": theirs[f"{mlp}.b_in"],
            f"{mlp}.down.weight": theirs[f"{mlp}.W_out"].t(),
            f"{mlp}.down.bias": theirs[f"{mlp}.b_out"],
        }
        for number in "12":
            prefix = f"blocks.{layer}"
            state |= _norm(theirs, f"{prefix}.ln{number}", f"{prefix}.norm{number}", config)
    return state


def _norm(
    theirs: Mapping[str, Tensor], their_name: str, name: str, config: ModelConfig
) -> dict[str, Tensor]:
    """Return the tensors of a norm; weights that theirs lacks are 1 and biases 0."""
    if config.norm == "none":
        return {}
    ones, zeros = torch.ones(config.d_model), torch.zeros(config.d_model)
    tensors = {f"{name}.weight": theirs.get(f"{their_name}.w", ones)}
    if config.norm == "layer":
        tensors[f"{name}.bias"] = theirs.get(f"{their_name}.b", zeros)
    return tensors


def _with_rows(tensor: Tensor, rows: int, value: float) -> Tensor:
    """Return a tensor with rows of a value appended."""
    missing = tensor.new_full((rows - len(tensor), *tensor.shape[1:]), value)
    return torch.cat([tensor, missing])
