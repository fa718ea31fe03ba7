"""Names and shapes of a model's tensors, computed from its settings without building the model.

They are compared with a file, and memory is estimated from them, before any tensor is allocated.
Shapes: D d_model, H heads, K d_head, M d_mlp, P d_pos, T n_ctx, V vocabulary, L layers.
"""

import math

from wirework.config import GatingConfig, ModelConfig
from wirework.memory import require_memory

Shapes = dict[str, tuple[int, ...]]

LOADING_BYTES = 8
"""Bytes for each parameter while loading: the model's tensor and the tensor read from the file."""
TRAINING_BYTES = 16
"""Bytes for each parameter while training: weight, gradient and two Adam moments."""
WEIGHT_BYTES = 4
"""Bytes of a weight."""
LIVE_BYTES = 28
"""Bytes for each live weight and candidate: value, gradient, two moments, and its place."""


def tensor_shapes(config: ModelConfig) -> Shapes:
    """Return name and shape of each tensor in the `state_dict` of a transformer."""
    block = _block_shapes(config)
    blocks = {
        f"blocks.{layer}.{name}": shape
        for layer in range(config.n_layer)
        for name, shape in block.items()
    }
    return _outer_shapes(config) | blocks


def untied_shapes(config: ModelConfig) -> Shapes:
    """Return `tensor_shapes`, with a tied embedding listed once, as `embed.weight`."""
    shapes = tensor_shapes(config)
    if config.tied_embedding:
        del shapes["unembed.weight"]
    return shapes


def gate_shapes(config: ModelConfig, gating: GatingConfig) -> Shapes:
    """Return name and shape of each tensor of a self-ablating model's gates."""
    shapes: Shapes = {}
    if gating.level in ("local", "both"):
        for layer in range(config.n_layer):
            shapes |= _heads(f"local.{layer}", config, 1)
    if gating.level in ("global", "both"):
        shapes |= _heads("whole", config, config.n_layer)
    return shapes


def n_parameters(config: ModelConfig, gating: GatingConfig | None = None) -> int:
    """Return the number of entries in all tensors of a model and its gates, fixed ones included."""
    outer = _outer_shapes(config)
    if config.tied_embedding:
        del outer["unembed.weight"]
    per_layer = _size(_block_shapes(config))
    if gating is not None:
        levels = 2 if gating.level == "both" else 1
        per_layer += levels * _size(_heads("", config, 1))
    return _size(outer) + config.n_layer * per_layer


def check_memory(
    config: ModelConfig, gating: GatingConfig | None, source: str, bytes_each: int = LOADING_BYTES
) -> None:
    """Check that a model fits into memory, before any of it is built.

    Args:
        config: settings of the model.
        gating: settings of its gates; None for none.
        source: origin of the settings, for the message.
        bytes_each: bytes for each parameter, `LOADING_BYTES` or `TRAINING_BYTES`.

    Raises:
        InputError: it does not fit; the message has the needed and the available memory.
    """
    count = n_parameters(config, gating)
    shown = f"{count:,}" if count < 1e15 else f"{count:.1e}"
    detail = f"its largest tensor is {_largest(config)}"
    require_memory(bytes_each * count, f"{source}: a model of {shown} parameters", detail)


def _outer_shapes(config: ModelConfig) -> Shapes:
    vocab, width = config.vocab_size, config.d_model
    shapes: Shapes = {"embed.weight": (vocab, width), "unembed.weight": (vocab, width)}
    if config.positions != "none":
        shapes["positions.weight"] = (config.n_ctx, config.d_pos or width)
    if config.logit_bias:
        shapes["logit_bias"] = (vocab,)
    if config.bigram:
        shapes["bigram"] = (vocab, vocab)
    return shapes | _norm("norm", config, width)


def _block_shapes(config: ModelConfig) -> Shapes:
    width, inner = config.d_model, config.n_head * config.d_head
    shapes: Shapes = {}
    for number in ("1", "2"):
        shapes |= _norm(f"norm{number}", config, width)
        if config.d_pos:
            shapes |= _norm(f"pos_norm{number}", config, config.d_pos)
    reads = config.site_width("attn.act_in")
    shapes |= _linear("attn.qkv", 3 * inner, reads, config.qkv_bias)
    shapes |= _linear("attn.out", width, inner, config.bias)
    shapes |= _linear("mlp.up", config.d_mlp, reads, config.bias)
    shapes |= _linear("mlp.down", width, config.d_mlp, config.bias)
    if config.sinks:
        shapes["attn.sink"] = (config.n_head,)
    return shapes


def _heads(name: str, config: ModelConfig, layers: int) -> Shapes:
    units = {"attention": config.n_head * config.d_head, "neurons": config.d_mlp}
    shapes: Shapes = {}
    for kind, count in units.items():
        shapes |= _linear(f"{name}.{kind}", layers * count, config.d_model, True)
    return shapes


def _linear(name: str, writes: int, reads: int, bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (writes, reads)}
    return shapes | {f"{name}.bias": (writes,)} if bias else shapes


def _norm(name: str, config: ModelConfig, width: int) -> Shapes:
    if config.norm == "none":
        return {}
    shapes: Shapes = {f"{name}.weight": (width,)}
    biased = config.norm == "layer" and config.norm_bias
    return shapes | {f"{name}.bias": (width,)} if biased else shapes


def _largest(config: ModelConfig) -> str:
    """Return name and shape of the largest tensor; the same tensor of all layers counts as one."""
    block = _block_shapes(config)
    outer, layers = _outer_shapes(config), config.n_layer
    counts = {name: math.prod(shape) for name, shape in outer.items()}
    counts |= {name: layers * math.prod(shape) for name, shape in block.items()}
    name = max(counts, key=lambda name: counts[name])
    if name in outer:
        return f"{name} {outer[name]}"
    return f"{name} {block[name]}, in each of {layers} layers"


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
