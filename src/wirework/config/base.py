"""What all settings are: frozen, an unknown key is an error, readable from YAML.

No torch in this folder: the command line reads it to print its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wirework.errors import InputError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys refused, readable from YAML."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        defer_build=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _none_in_words(cls, values: Any) -> Any:
        """Read `none` and `null`, which is all a command line can say, as None where None fits."""
        if not isinstance(values, dict):
            return values
        optional = {
            name
            for name, field in cls.model_fields.items()
            if type(None) in getattr(field.annotation, "__args__", ())
        }
        return {
            name: None if name in optional and value in ("none", "null") else value
            for name, value in values.items()
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], source: str = "settings") -> Self:
        """Validate a mapping.

        Args:
            values: nested mapping of settings.
            source: where they came from, for the message.

        Raises:
            InputError: one line that names the first offending setting and what would fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {first_problem(cls, error)}") from None

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read settings from a YAML file.

        Args:
            path: the YAML file.
            overrides: dotted names to values (`{"model.d_model": 128}`) that win over the file.

        Raises:
            InputError: file missing or not a YAML mapping, or a setting unknown or out of range.
        """
        values = read_yaml(path)
        for name, value in (overrides or {}).items():
            _set_dotted(values, name, value)
        return cls.of(values, str(path))

    def to_yaml(self) -> str:
        """Return the settings, all of them, as YAML."""
        import yaml

        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


def _set_dotted(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    values[last] = value


def first_problem(cls: type[Config], error: ValidationError) -> str:
    """Say in one line what is wrong with the first offending setting."""
    return problem(cls, error.errors(include_url=False)[0])


def problem(cls: type[Config], details: ErrorDetails) -> str:
    """Say one of a validation's errors in one line."""
    path = [str(part) for part in details["loc"]]
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        return f"unknown setting {name!r}{nearest(path[-1], known)}"
    # Without the names of types, as in vocab_size.constrained-int, where a setting takes several.
    name = ".".join(part for part in path if part.isidentifier() or part.isdigit())
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, got {details['input']!r}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        InputError: missing, not YAML, or not a mapping of names to values.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected settings (name: value), got {type(values).__name__}")
    return {str(name): value for name, value in values.items()}


def _fields_at(cls: type[Config], path: list[str]) -> list[str]:
    """Names of the settings of the (nested) config at `path`."""
    for part in path:
        annotation = cls.model_fields[part].annotation
        options = getattr(annotation, "__args__", (annotation,))
        cls = next(option for option in options if isinstance(option, type))
    return list(cls.model_fields)
