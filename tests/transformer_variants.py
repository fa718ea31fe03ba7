"""Small transformers in every configuration, for tests of all folders."""

from typing import Any

import torch

from wirework.config import ModelConfig
from wirework.nn import Transformer

SMALL: dict[str, Any] = {"vocab_size": 17, "n_ctx": 10, "n_layer": 2, "d_model": 16, "d_head": 4}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "dense": {"act_fraction": None},
    "layer norm": {"norm": "layer"},
    "layer norm without bias": {"norm": "layer", "norm_bias": False},
    "added positions": {"positions": "added"},
    "positions beside": {"positions": "concat", "d_pos": 8},
    "sinusoids beside": {"positions": "sinusoidal_concat", "d_pos": 7},
    "unscaled": {"attention_scale": "none"},
    "windows": {"attention_windows": [3, None]},
    "no biases": {"qkv_bias": False, "bias": False},
    "output biases only": {"qkv_bias": False},
    "tied": {"tied_embedding": True},
    "no sinks": {"sinks": False},
    "no bigram": {"bigram": False},
    "fixed bigram": {"learn_bigram": False},
    "logit bias": {"logit_bias": True},
    "relu": {"activation": "relu"},
    "tanh gelu": {"activation": "gelu_tanh"},
    "relu on the stream": {"residual_activation": "relu"},
    "sparse stream": {"act_sites": ["resid_mid", "resid_out"]},
    "odd heads": {"n_head": 3, "d_head": 5, "d_mlp": 9},
    "GPT-Neo": {
        "norm": "layer",
        "positions": "added",
        "attention_scale": "none",
        "attention_windows": [None, 4],
        "qkv_bias": False,
        "tied_embedding": True,
        "sinks": False,
        "bigram": False,
        "act_fraction": None,
        "activation": "gelu_tanh",
    },
}


def build(name: str, seed: int = 0) -> Transformer:
    """A transformer whose every parameter is random, also those that start at 0 or 1."""
    transformer = Transformer(ModelConfig.of(SMALL | VARIANTS[name]), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return transformer
