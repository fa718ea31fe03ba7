"""A pair of models between which the exact bridges are known.

The dense model is a hand-wired one in a rotated basis of the residual stream. Rotation and its
inverse are the bridges.
"""

from pathlib import Path

import torch

from wirework.bridges import Bridged
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.bridges import Bridges


def exact_pair(model: Model) -> Bridged:
    """Return a hand-wired model as the sparse one, and itself in another basis as the dense one."""
    width = model.config.d_model
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.manual_seed(3)))
    bridges = Bridges(2 * model.config.n_layer + 1, width, width)
    with torch.no_grad():
        for encoder, decoder in zip(bridges.encoders, bridges.decoders, strict=True):
            encoder.weight.copy_(rotation.T)
            decoder.weight.copy_(rotation)
    return Bridged(rotated(model, rotation), model, bridges, Path("nowhere"))


def rotated(model: Model, rotation: torch.Tensor) -> Model:
    """Return a model with its residual stream in another orthonormal basis."""
    transformer = Transformer(model.config)
    state = {name: tensor.clone() for name, tensor in model.transformer.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(("embed.weight", "qkv.weight", "up.weight")):  # reads, and `unembed`
            state[name] = tensor @ rotation.T
        elif name.endswith(("out.weight", "down.weight", "out.bias", "down.bias")):
            state[name] = rotation @ tensor
    transformer.load_state_dict(state)
    return Model(transformer, model.tokenizer)
