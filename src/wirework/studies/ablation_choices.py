"""The training choices that the ablation study changes, one at a time."""

from collections.abc import Mapping
from typing import Any

from wirework.config import TrainConfig, WeightSparsityConfig, changes
from wirework.console import warn
from wirework.errors import InputError, nearest

BASE = "base"
"""Name of the model with no changed choice."""

Settings = Mapping[str, Any]
"""Values by the dotted names of settings of `TrainConfig`."""

_RESIDUAL_SITES = ("attn.act_in", "attn.resid_delta", "mlp.act_in", "mlp.resid_delta")


def choices(base: TrainConfig) -> dict[str, Settings]:
    """Return every choice of the study with the settings that it changes, the base model first.

    Choices that are those of the base model, or impossible with its other settings, are left out.

    Args:
        base: settings of the base model, which is weight-sparse.

    Source: Gao et al. 2025, App. A, Figs. 13 to 30, and App. D (smooth L0).
    """
    sparsity = base.weight_sparsity or WeightSparsityConfig()
    every: dict[str, Settings] = {
        "eps-1e-8": {"optimizer.eps": 1e-8},
        "eps-1e-3": {"optimizer.eps": 1e-3},
        "rms-normalise": {"optimizer.grad_scale": "normalise"},
        "rms-clip": {"optimizer.grad_scale": "clip"},
        "rms-none": {"optimizer.grad_scale": "none"},
        "warmup-0": {"optimizer.warmup": 0.0},
        "warmup-0.05": {"optimizer.warmup": 0.05},
        "warmup-0.1": {"optimizer.warmup": 0.1},
        "no-sharkfin": {"weight_sparsity.sharkfin": False},
        "no-annealing": {"weight_sparsity.start_fraction": sparsity.l0_fraction},
        "anneal-0.1": {"weight_sparsity.anneal_end": 0.1},
        "anneal-0.5": {"weight_sparsity.anneal_end": 0.5},
        "anneal-0.8": {"weight_sparsity.anneal_end": 0.8},
        "floor-0": {"weight_sparsity.floor": 0},
        "floor-4": {"weight_sparsity.floor": 4},
        "no-sinks": {"model.sinks": False},
        "positions-added": {"model.positions": "added", "model.d_pos": None},
        "positions-concat": {"model.positions": "concat", "model.d_pos": 16},
        "positions-sinusoidal": {"model.positions": "sinusoidal_concat", "model.d_pos": 16},
        "act-all": {"model.act_fraction": None},
        "act-0.5": {"model.act_fraction": 0.5},
        "act-0.125": {"model.act_fraction": 0.125},
        "sites-residual": {"model.act_sites": _RESIDUAL_SITES},
        "sites-neurons": {"model.act_sites": ("mlp.post_act",)},
        "sites-no-qkv": {"model.act_sites": (*_RESIDUAL_SITES, "mlp.post_act")},
        "smooth-l0-1e-6": {"weight_sparsity": None, "hard_concrete": {"coef": 1e-6}},
        "smooth-l0-3e-6": {"weight_sparsity": None, "hard_concrete": {"coef": 3e-6}},
        "revival": {"revival": {"silent_steps": max(1, base.steps // 20)}},
        "revival-large": {"revival": {"silent_steps": max(1, base.steps // 20), "scale": 10.0}},
    }
    kept = {name: values for name, values in every.items() if _is_another(name, base, values)}
    return {BASE: {}, **kept}


def chosen(base: TrainConfig, only: tuple[str, ...]) -> dict[str, Settings]:
    """Return the base model and the named choices, in the order of the study; none: all.

    Raises:
        InputError: there is no such choice, or it is left out.
    """
    every = choices(base)
    for name in only:
        if name not in every:
            raise InputError(
                f"no choice {name!r}, or it is the base model's or impossible with its settings"
                f"{nearest(name, every)}"
            )
    return {name: values for name, values in every.items() if name in (BASE, *only) or not only}


def changed_settings(base: TrainConfig, values: Settings, source: str = "settings") -> TrainConfig:
    """Return the settings of the base model with some replaced.

    Raises:
        InputError: the combination is impossible.
    """
    # Unset settings that follow from others (the vocabulary size) are derived again.
    changed = base.model_dump(mode="json", exclude_unset=True)
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = changed
        for group in groups:
            inner[group] = dict(inner.get(group) or {})
            inner = inner[group]
        inner[last] = value
    return TrainConfig.of(changed, source)


def described(base: TrainConfig, values: Settings) -> str:
    """Return what a choice changes as one line, `optimizer.eps: 0.1 -> 1e-08`."""
    return "; ".join(str(change) for change in _changes(base, values))


def _is_another(name: str, base: TrainConfig, values: Settings) -> bool:
    """Return whether a choice differs from the base model; an impossible one is told of."""
    try:
        return bool(_changes(base, values))
    except InputError as error:
        warn(f"{name} is left out, since it is impossible with the base model's settings: {error}")
        return False


def _changes(base: TrainConfig, values: Settings) -> list[Any]:
    after = changed_settings(base, values)
    return changes(base.model_dump(mode="json"), after.model_dump(mode="json"))
