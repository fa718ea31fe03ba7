"""Presets: named sets of values, and the models that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from wirework.config.base import Config
from wirework.config.model import ModelConfig
from wirework.errors import InputError

Preset = Literal["authors"]
"""Name of a preset. `authors`: Ferrao et al. 2025."""

_SHAPES = {"authors": {"n_layer": 8, "d_model": 128, "n_ctx": 256}}
"""Shape of the models that each preset is for (Ferrao et al. 2025, GPT-Neo of TinyStories)."""


class PresetConfig(Config):
    """Settings of which a preset gives those that the user did not set."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values by the name of the preset."""
    if TYPE_CHECKING:  # each class has the setting at its own place in the order
        preset: Preset | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, values: Any) -> Any:
        """Add the values of the preset; given values win, also inside groups."""
        if not isinstance(values, dict) or values.get("preset") not in cls.presets:
            return values
        return _merged(cls.presets[values["preset"]], values)

    def check_fits(self, model: ModelConfig) -> None:
        """Make sure that the preset, if there is one, is for models of this shape.

        Raises:
            InputError: it is not.
        """
        if self.preset is None:
            return
        wanted = _SHAPES[self.preset]
        found = {name: getattr(model, name) for name in wanted}
        if found != wanted:
            raise InputError(
                f"preset {self.preset} is for models of {_shape(wanted)}; this one has "
                f"{_shape(found)}: leave the preset out and give single settings"
            )


def _merged(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a preset, overridden by those given; groups are merged."""
    merged = {**preset, **given}
    for name in preset.keys() & given.keys():
        group = given[name]
        if isinstance(group, Config):  # also settings at their default count as given there
            group = {field: getattr(group, field) for field in group.model_fields_set}
        if isinstance(preset[name], Mapping) and isinstance(group, Mapping):
            merged[name] = _merged(preset[name], group)
    return merged


def _shape(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
