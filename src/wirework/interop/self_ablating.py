"""The released self-ablating models of Ferrao et al. 2025: a `.pt` and a configuration beside it.

The configuration is `config.json`, or the run's `config.yaml`, where each entry is `{value: ...}`.
Missing fields have the defaults of their code, with a warning that names them. Their own loader
uses defaults silently, and so turned k = 2 into 32.
"""

import re
from pathlib import Path
from typing import Any, Literal

from wirework.config import Config, Count, GatingConfig, ModelConfig, read_yaml
from wirework.console import warn
from wirework.errors import InputError, quoted
from wirework.files import is_file, read_json
from wirework.interop.foreign_tokenizer import read_tokenizer
from wirework.interop.gpt_neo import (
    GPT_NEO_FIELDS,
    GPT_NEO_PARTS,
    IGNORED,
    gpt_neo_config,
    gpt_neo_names,
    windows_of,
)
from wirework.interop.weight_files import read_weights
from wirework.interop.weights import our_state, unwrapped, with_tied
from wirework.model import Model
from wirework.model_tensors import load_untied_, refuse_layers
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.shapes import check_memory, gate_shapes, untied_shapes

_FIELDS = GPT_NEO_FIELDS | {"d_mlp": "mlp_hidden_size"}
_LEVELS = {"layer-by-layer": "local", "overall": "global", "both": "both"}
_MASKS = {"hard-top-K-with-soft-gradient": "hard", "soft-top-K-version-1": "soft"}
_PARTS = GPT_NEO_PARTS | {
    "neuron_ablations_head",
    "attention_ablations_head",
    "neuron_ablation_head",
    "attention_ablation_head",
}
"""Names, without layer and kind, of all tensors that such a model may have."""
_NO_EFFECT = re.compile(
    r"_wandb|wandb_version|device|dtype|tokenizer_name|dataset_name|top_k_level|train_file|val_file"
    r"|per_layer_ablation_position|block_size|num_batches|batch_size|learning_rate|weight_decay"
    r"|max_grad_norm|save_path|eval_iters|log_interval|lr_schedule"
)


class _SelfAblatingFields(Config):
    """The fields of a configuration that affect the computation, with their defaults."""

    vocab_size: Count = 50257
    hidden_size: Count = 128
    mlp_hidden_size: Count | None = None
    num_layers: Count = 8
    num_heads: Count = 16
    max_position_embeddings: Count = 256
    window_size: Count = 256
    attention_layers: list[str] | None = None
    k_attention: Count = 32
    k_neurons: Count = 32
    temperature_attention: float = 0.1
    temperature_neurons: float = 0.1
    top_k_epsilon: float = 1e-12
    loss_coeff_base: float = 1.0
    loss_coeff_ablated: float = 0.1
    reconstruction_coeff: float = 0.1
    reconstruction_loss_type: Literal["MSE"] | None = "MSE"
    has_layer_by_layer_ablation_mask: bool = True
    has_overall_ablation_mask: bool = False
    ablation_processing: Literal["soft-top-K-version-1", "hard-top-K-with-soft-gradient"] = (
        "soft-top-K-version-1"
    )


def load_self_ablating(path: str | Path) -> Model:
    """Load a released model of Ferrao et al. 2025, or one saved in their format.

    Args:
        path: a folder with one `*.pt` and `config.json` or `config.yaml`, or the `.pt` itself;
            nothing is downloaded. A tokeniser beside it is read too.

    Returns:
        The plain model on the CPU in float32, with its gates as `.gates`, for `streams`. A warning
        names missing fields, which have the defaults of their code, unknown fields and unused
        tensors.

    Raises:
        InputError: a file is missing, damaged or foreign, a field cannot be used, or a tensor is
            missing, unexpected, of the wrong shape or not finite.

    Source: Ferrao et al. 2025, and their released code.
    """
    if "://" in str(path):
        raise InputError(f"{path} is an address and nothing is downloaded: fetch it into a folder")
    weights, folder = _find_weights(Path(path))
    released, source = _read_config(folder)
    config, gating = gpt_neo_config(released, _FIELDS, source), _our_gating(released, source)
    gating.check_fits(config)
    check_memory(config, gating, source)
    state = unwrapped(read_weights(weights), str(weights))
    refuse_layers(config.n_layer, state, str(weights))
    config = _with_windows(config, released, source)
    embed, unembed = "transformer.wte.weight", "lm_head.weight"
    state = with_tied(state, embed, unembed, str(weights), "they are tied")
    gated = {f"gates.{name}": shape for name, shape in gate_shapes(config, gating).items()}
    expected = untied_shapes(config) | gated
    tensors = our_state(state, expected, _their_names, str(weights), IGNORED, _PARTS)
    transformer, gates = Transformer(config), Gates(config, gating)
    gates.load_state_dict({name.removeprefix("gates."): tensors.pop(name) for name in gated})
    load_untied_(transformer, tensors)
    return Model(transformer, read_tokenizer(folder), folder, gates)


def _find_weights(path: Path) -> tuple[Path, Path]:
    """Return the `.pt` and the folder of what stands beside it."""
    if path.is_file():
        return path, path.parent
    if not path.is_dir():
        raise InputError(f"no model at {path}: expected a folder with a .pt file, or the file")
    files = sorted(path.glob("*.pt"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{path}: expected one .pt file, found {names}; give the file itself")
    return files[0], path


def _read_config(folder: Path) -> tuple[_SelfAblatingFields, str]:
    plain, run = folder / "config.json", folder / "config.yaml"
    path = plain if is_file(plain) or not is_file(run) else run
    values = read_json(path) if path == plain else _without_wrapping(read_yaml(path))
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object of fields, got {type(values).__name__}")
    values = _modern(values, str(path))
    values_read = {
        name: value for name, value in values.items() if name in _SelfAblatingFields.model_fields
    }
    released = _SelfAblatingFields.of(values_read, str(path))
    if missing := sorted(_SelfAblatingFields.model_fields.keys() - values_read.keys()):
        taken = ", ".join(f"{name} = {getattr(released, name)}" for name in missing)
        warn(f"{path} leaves out, so that defaults are taken: {taken}")
    unknown = [
        name
        for name in sorted(values.keys() - values_read.keys())
        if not _NO_EFFECT.fullmatch(name)
    ]
    if unknown:
        warn(f"{path}: unknown fields left aside: {', '.join(unknown)}")
    return released, str(path)


def _without_wrapping(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value["value"] if isinstance(value, dict) and "value" in value else value
        for name, value in values.items()
    }


def _modern(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the fields of a run's log under the names of a configuration."""
    values = dict(values)
    if "reconstuction_loss" in values:  # so spelt in their logs
        values.setdefault("reconstruction_loss_type", values.pop("reconstuction_loss"))
    level = values.pop("ablation_mask_level", None)
    if level is not None:
        if not isinstance(level, str) or level not in _LEVELS:
            raise InputError(
                f"{source}: ablation_mask_level is {quoted(level)}, not {', '.join(_LEVELS)}"
            )
        said = {
            "has_layer_by_layer_ablation_mask": level != "overall",
            "has_overall_ablation_mask": level != "layer-by-layer",
        }
        for name, value in said.items():
            if values.setdefault(name, value) != value:
                raise InputError(f"{source}: ablation_mask_level {level!r} and {name} disagree")
    return values


def _with_windows(config: ModelConfig, released: _SelfAblatingFields, source: str) -> ModelConfig:
    windows = windows_of(released.attention_layers, released.window_size, config.n_layer, source)
    return config.model_copy(update={"attention_windows": windows})


def _our_gating(released: _SelfAblatingFields, source: str) -> GatingConfig:
    local, whole = released.has_layer_by_layer_ablation_mask, released.has_overall_ablation_mask
    if not (local or whole):
        raise InputError(f"{source}: the model has no ablation mask, neither by layer nor overall")
    measured = released.reconstruction_loss_type is not None
    values = {
        "level": "both" if local and whole else "local" if local else "global",
        "k_attention": released.k_attention,
        "k_neurons": released.k_neurons,
        "temperature_attention": released.temperature_attention,
        "temperature_neurons": released.temperature_neurons,
        "epsilon": released.top_k_epsilon,
        "mask": _MASKS[released.ablation_processing],
        "base_coef": released.loss_coeff_base,
        "ablated_coef": released.loss_coeff_ablated,
        "reconstruction_coef": released.reconstruction_coeff if measured else 0.0,
    }
    return GatingConfig.of(values, source)


def _their_names(name: str) -> list[str]:
    """Return their names of one of our tensors: `gates.local.0.neurons.bias` and the model's."""
    if not name.startswith("gates."):
        return gpt_neo_names(name)
    *where, units, kind = name.removeprefix("gates.").split(".")
    if where == ["whole"]:
        return [f"{'neuron' if units == 'neurons' else 'attention'}_ablations_head.{kind}"]
    head = "neuron_ablation_head" if units == "neurons" else "attention_ablation_head"
    return [f"transformer.h.{where[1]}.{head}.{kind}"]
