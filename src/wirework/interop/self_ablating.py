"""Read the released self-ablating models of Ferrao et al. 2025.

A model is a `.pt` file of weights with a configuration beside it: `config.json`, or the
`config.yaml` that W&B saved for the run, in which each entry has the form `{value: ...}`.
Missing fields have the defaults of their code, and a warning names them: their own loader uses
defaults silently, which turned k = 2 into 32.
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
"""Our names of the size settings to theirs."""
_LEVELS = ("layer-by-layer", "overall", "both")
"""Values of `ablation_mask_level`; in our terms: local, global and both."""
_MASKS = {"hard-top-K-with-soft-gradient": "hard", "soft-top-K-version-1": "soft"}
"""Values of `ablation_processing`, to those of our setting `mask`."""
_PARTS = GPT_NEO_PARTS | {
    "neuron_ablations_head",
    "attention_ablations_head",
    "neuron_ablation_head",
    "attention_ablation_head",
}
"""Names of all tensors that such a model may have, without layer, `.weight` and `.bias`."""
_NO_EFFECT = re.compile(
    r"_wandb|wandb_version|device|dtype|tokenizer_name|dataset_name|top_k_level|train_file|val_file"
    r"|per_layer_ablation_position|block_size|num_batches|batch_size|learning_rate|weight_decay"
    r"|max_grad_norm|save_path|eval_iters|log_interval|lr_schedule"
)
"""Fields that do not affect what a trained model computes."""


class _SelfAblatingFields(Config):
    """The fields of their configuration that affect the computation, with their defaults."""

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
        path: a folder with one `*.pt` and `config.json` or `config.yaml`, or the `.pt` itself.
            Nothing is downloaded. A tokeniser in the folder is read too.

    Returns:
        The model on the CPU in float32, without ablation; its gates are `model.gates`, which
        `model.streams` uses. Warnings name missing fields with the defaults that are used, unknown
        fields and unused tensors.

    Raises:
        InputError: a file is missing, damaged or foreign, a field cannot be used, or a tensor is
            missing, unexpected, of the wrong shape or not finite.

    Source: Ferrao et al. 2025, and their released code.
    """
    if "://" in str(path):
        raise InputError(
            f"{path} is a web address, and nothing is downloaded: put its files into a folder and "
            "give its path"
        )
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
    of_gates = {f"gates.{name}": shape for name, shape in gate_shapes(config, gating).items()}
    expected = untied_shapes(config) | of_gates
    tensors = our_state(state, expected, _their_names, str(weights), IGNORED, _PARTS)
    transformer, gates = Transformer(config), Gates(config, gating)
    gates.load_state_dict({name.removeprefix("gates."): tensors.pop(name) for name in of_gates})
    load_untied_(transformer, tensors)
    return Model(transformer, read_tokenizer(folder), folder, gates)


def _find_weights(path: Path) -> tuple[Path, Path]:
    """Return the `.pt` file and its folder, which has the configuration and the tokeniser."""
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
    """Read their configuration; warnings name missing and unknown fields.

    Returns:
        The configuration, and the path of its file for messages.
    """
    json_file, yaml_file = folder / "config.json", folder / "config.yaml"
    path = json_file if is_file(json_file) or not is_file(yaml_file) else yaml_file
    values = read_json(path) if path == json_file else _unwrapped_values(read_yaml(path))
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object of fields, got {type(values).__name__}")
    values = _with_current_names(values, str(path))
    known = {
        name: value for name, value in values.items() if name in _SelfAblatingFields.model_fields
    }
    released = _SelfAblatingFields.of(known, str(path))
    if missing := sorted(_SelfAblatingFields.model_fields.keys() - known.keys()):
        defaults = ", ".join(f"{name} = {getattr(released, name)}" for name in missing)
        warn(f"{path} lacks some fields, their defaults are used: {defaults}")
    others = sorted(values.keys() - known.keys())
    if unknown := [name for name in others if not _NO_EFFECT.fullmatch(name)]:
        warn(f"{path}: unknown fields are ignored: {', '.join(unknown)}")
    return released, str(path)


def _unwrapped_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a W&B configuration, whose entries have the form `{value: ...}`."""
    return {
        name: value["value"] if isinstance(value, dict) and "value" in value else value
        for name, value in values.items()
    }


def _with_current_names(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Return fields under the names of their current code, given those of their logs.

    Raises:
        InputError: `ablation_mask_level` is unknown, or contradicts the fields that replace it.
    """
    values = dict(values)
    if "reconstuction_loss" in values:  # misspelt in their logs
        values.setdefault("reconstruction_loss_type", values.pop("reconstuction_loss"))
    level = values.pop("ablation_mask_level", None)
    if level is not None:
        if not isinstance(level, str) or level not in _LEVELS:
            raise InputError(
                f"{source}: ablation_mask_level is {quoted(level)}, not {', '.join(_LEVELS)}"
            )
        replacements = {
            "has_layer_by_layer_ablation_mask": level != "overall",
            "has_overall_ablation_mask": level != "layer-by-layer",
        }
        for name, value in replacements.items():
            if values.setdefault(name, value) != value:
                raise InputError(f"{source}: ablation_mask_level {level!r} and {name} disagree")
    return values


def _with_windows(config: ModelConfig, released: _SelfAblatingFields, source: str) -> ModelConfig:
    """Return our settings with the attention window of each layer."""
    windows = windows_of(released.attention_layers, released.window_size, config.n_layer, source)
    return config.model_copy(update={"attention_windows": windows})


def _our_gating(released: _SelfAblatingFields, source: str) -> GatingConfig:
    """Translate their settings of the gates into ours.

    Raises:
        InputError: the model has no gates, or a setting is out of range.
    """
    has_local = released.has_layer_by_layer_ablation_mask
    has_global = released.has_overall_ablation_mask
    if not (has_local or has_global):
        raise InputError(f"{source}: the model has no ablation mask, neither by layer nor overall")
    has_reconstruction_loss = released.reconstruction_loss_type is not None
    reconstruction_coef = released.reconstruction_coeff if has_reconstruction_loss else 0.0
    values = {
        "level": "both" if has_local and has_global else "local" if has_local else "global",
        "k_attention": released.k_attention,
        "k_neurons": released.k_neurons,
        "temperature_attention": released.temperature_attention,
        "temperature_neurons": released.temperature_neurons,
        "epsilon": released.top_k_epsilon,
        "mask": _MASKS[released.ablation_processing],
        "base_coef": released.loss_coeff_base,
        "ablated_coef": released.loss_coeff_ablated,
        "reconstruction_coef": reconstruction_coef,
    }
    return GatingConfig.of(values, source)


def _their_names(name: str) -> list[str]:
    """Return their names of one of our tensors.

    The model's tensors have the names of GPT-Neo. Those of the gates are, for example:

    - `gates.local.0.neurons.bias`: `transformer.h.0.neuron_ablation_head.bias`
    - `gates.whole.neurons.bias`, of global gates: `neuron_ablations_head.bias`
    """
    if not name.startswith("gates."):
        return gpt_neo_names(name)
    *level, units, kind = name.removeprefix("gates.").split(".")
    unit = "neuron" if units == "neurons" else "attention"
    if level == ["whole"]:
        return [f"{unit}_ablations_head.{kind}"]
    _, layer = level
    return [f"transformer.h.{layer}.{unit}_ablation_head.{kind}"]
