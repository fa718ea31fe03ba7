"""Shapes and sizes from the settings, against the modules that are built from them."""

from typing import Any

import pytest

from wirework.config import GatingConfig, ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.shapes import check_memory, gate_shapes, n_parameters, tensor_shapes

SMALL: dict[str, Any] = {"vocab_size": 23, "n_ctx": 12, "n_layer": 3, "d_model": 16, "d_head": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "layer norm": {"norm": "layer"},
    "layer norm without bias": {"norm": "layer", "norm_bias": False},
    "no norm": {"norm": "none", "positions": "concat", "d_pos": 5},
    "no biases": {"bias": False, "qkv_bias": False},
    "no query biases": {"qkv_bias": False},
    "added positions": {"positions": "added"},
    "positions beside": {"positions": "concat", "d_pos": 5},
    "sinusoids beside, layer norm": {"positions": "sinusoidal_concat", "d_pos": 5, "norm": "layer"},
    "tied": {"tied_embedding": True},
    "neither sinks nor bigram": {"sinks": False, "bigram": False},
    "bias on the logits": {"logit_bias": True},
    "wide heads, narrow MLP": {"n_head": 3, "d_head": 7, "d_mlp": 9},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_shapes_are_those_of_the_built_model(name: str) -> None:
    config = ModelConfig(**(SMALL | VARIANTS[name]))
    transformer = Transformer(config)
    built = {key: tuple(tensor.shape) for key, tensor in transformer.state_dict().items()}
    assert tensor_shapes(config) == built
    numbers = [*transformer.parameters(), *transformer.buffers()]
    assert n_parameters(config) == sum(tensor.numel() for tensor in numbers)


@pytest.mark.parametrize("level", ["local", "global", "both"])
def test_shapes_of_gates_are_those_of_the_built_ones(level: Any) -> None:
    config, gating = ModelConfig(**SMALL), GatingConfig(level=level, k_attention=2, k_neurons=3)
    gates = Gates(config, gating)
    built = {key: tuple(tensor.shape) for key, tensor in gates.state_dict().items()}
    assert gate_shapes(config, gating) == built
    more = n_parameters(config, gating) - n_parameters(config)
    assert more == sum(tensor.numel() for tensor in gates.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"d_model": 10**12, "d_head": 10**6},
        {"n_layer": 10**12},
        {"vocab_size": 2**63 - 1},
        {"n_head": 10**9, "d_head": 10**9},
        {"n_ctx": 10**15, "positions": "added"},
        {"d_mlp": 10**14},
    ],
)
def test_what_cannot_fit_is_refused_with_both_numbers(change: dict[str, Any]) -> None:
    config = ModelConfig(**(SMALL | change))
    with pytest.raises(
        InputError, match=r"a.json: a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"
    ):
        check_memory(config, None, "a.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": 10**9}, r"its largest tensor is bigram \(1000000000, 1000000000\)$"),
        ({"n_layer": 10**12}, r"is mlp\.up\.weight \(64, 16\), in each of 1000000000000 layers$"),
    ],
)
def test_the_part_that_is_too_large_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_memory(ModelConfig(**(SMALL | change)), None, "a.json")


def test_a_small_model_fits() -> None:
    check_memory(ModelConfig(**SMALL), None, "a.json")


@pytest.mark.parametrize("name", ["vocab_size", "n_ctx", "n_layer", "d_model", "d_head", "n_head"])
def test_sizes_beyond_what_a_tensor_can_have_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: an integer below 2"):
        ModelConfig.of({name: 10**30})
    with pytest.raises(InputError, match=rf"{name}: "):
        ModelConfig.of({name: 1e30})
