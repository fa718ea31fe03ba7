"""Base class of all settings: frozen, unknown keys are errors, readable from YAML.

No torch in this folder: the command line imports it to print its help.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wirework.config.yaml_file import read_yaml
from wirework.errors import InputError, nearest, quoted
from wirework.renamed_flags import SETTINGS, current_names
from wirework.renamed_names import old_attributes

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
_LARGEST = 2**63 - 1
_MESSAGE = 300
"""Maximum length of a validation message; some list every valid value."""


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys refused, readable from YAML."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        defer_build=True,
        allow_inf_nan=False,
    )
    basic: ClassVar[tuple[str, ...]] = ()
    """Names of the settings that `--help` shows; `--help-all` shows all. The name of a group stands
    for the basic settings of that group, a dotted name (`train.steps`) for one setting of it."""

    def __init__(self, **values: Any) -> None:
        current_names(values, self.renamed())  # here its InputError is no ValidationError
        super().__init__(**values)

    # As in pydantic's own RootModel: validation need not call this `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        old_attributes(**cls.renamed())(cls)

    @classmethod
    def renamed(cls) -> dict[str, str]:
        """Return the old names of its settings with the current ones. Files keep the old names."""
        return {old: now for old, now in SETTINGS.items() if now in cls.model_fields}

    @classmethod
    def setting_names(cls, *, basic: bool = False) -> list[str]:
        """Return the dotted names of all settings, including those of groups, in order.

        Args:
            basic: only the basic ones.
        """
        names = []
        for name in cls.basic if basic else cls.model_fields:
            first, _, rest = name.partition(".")
            group = _group(cls, first)
            if group is None or rest:
                names.append(name)
            else:
                names += [f"{name}.{inner}" for inner in group.setting_names(basic=basic)]
        return names

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, values: Any) -> Any:
        """Read the texts `none` and `null` of a command line as None where None is valid.

        An integer that does not fit 64 bits is refused: it would only fail later, when it is used.
        """
        if not isinstance(values, dict):
            return values
        values = current_names(values, cls.renamed())
        for name, value in values.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, int) and not -_LARGEST <= item <= _LARGEST:
                    raise ValueError(
                        f"{name}: an integer below 2**63 is wanted, got {quoted(item)}"
                    )
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
            source: their origin, for the message.

        Raises:
            InputError: a setting is invalid; the message names the first one and its valid values.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{source}: {first_problem(cls, error)}") from None

    @classmethod
    def overridden(
        cls,
        config: Self | None,
        overrides: Mapping[str, Any],
        only: Collection[str] | None = None,
    ) -> Self:
        """Return settings with some values replaced.

        Args:
            config: the settings to start from; None for the defaults.
            overrides: name to value; they win over `config`.
            only: names that have an effect for the caller; None for all.

        Raises:
            InputError: `config` is of another class, or an override is unknown, without effect,
                out of range or also given by its old name.
        """
        if config is not None and not isinstance(config, cls):
            raise InputError(
                f"config must be of {cls.__name__}, got {quoted(config)}: "
                "give a single setting by its name"
            )
        for name in overrides:
            if only is not None and cls.renamed().get(name, name) not in only:
                allowed = f"settings that count here are {', '.join(only)}"
                raise InputError(f"no setting {quoted(name)}: {allowed}{nearest(name, only)}")
        overrides = current_names(overrides, cls.renamed())  # they win over `config` by either name
        return cls.of({**(cls() if config is None else config).model_dump(), **overrides})

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read settings from a YAML file.

        Args:
            path: the YAML file.
            overrides: dotted names to values (`{"model.d_model": 128}`) that win over the file.

        Raises:
            InputError: the file is missing or not a YAML mapping, or a setting is unknown or out of
                range.
        """
        values = read_yaml(path)
        for name, value in (overrides or {}).items():
            _set_dotted(values, name, value)
        return cls.of(values, str(path))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a validated copy with some settings changed.

        Settings derived from others, such as `n_head` from `d_model`, are derived again.

        Raises:
            InputError: a changed setting is unknown or out of range.
        """
        copy = super().model_copy(deep=deep)
        if not update:
            return copy
        set_values = {name: getattr(copy, name) for name in copy.model_fields_set}
        return self.of({**set_values, **current_names(update, self.renamed())})

    def derived(self, **values: Any) -> Self:
        """Return a copy with values that follow from other settings.

        Unlike in `model_copy`, they do not count as set by the user and are not validated.

        Args:
            values: values by name of the setting.
        """
        copy = super().model_copy(update=values)
        copy.model_fields_set.intersection_update(self.model_fields_set)
        return copy

    def recorded(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the settings as JSON values for a record on disk, under their old names.

        Args:
            exclude: old names of settings to leave out.
        """
        first = {now: name for name, now in self.renamed().items()}
        dumped = self.model_dump(mode="json")
        inner = {name: value.recorded() for name, value in self if isinstance(value, Config)}
        named = {first.get(name, name): value for name, value in {**dumped, **inner}.items()}
        return {name: value for name, value in named.items() if name not in exclude}

    def to_yaml(self) -> str:
        """Return all settings as YAML."""
        import yaml

        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


def _set_dotted(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        inner = values.get(parent)
        values[parent] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        values = inner
    for old, now in SETTINGS.items():
        if last in (old, now):  # the value wins by either name
            values.pop(old, None)
            values.pop(now, None)
    values[last] = value


def named_file(error: ValidationError, values: Mapping[str, Any], path: Path) -> str:
    """Return `PATH: ` if the value of the first invalid setting comes from a settings file.

    Args:
        error: error of the combined settings of file and flags.
        values: content of the file.
        path: the file.

    Returns:
        Also `PATH and flags: ` if only the combination is invalid, and an empty text if the value
        comes from a flag.
    """
    details = error.errors(include_url=False)[0]
    from_file, refused = _words(values), _words(details["input"])
    for part in map(str, details["loc"]):
        if not isinstance(from_file, dict):
            break
        if part not in from_file:
            return ""
        from_file = from_file[part]
    if from_file == refused:
        return f"{path}: "
    return (
        f"{path} and flags: " if isinstance(from_file, dict) and isinstance(refused, dict) else ""
    )


def _words(value: Any) -> Any:
    """Return a value as nested names and texts, as on a command line; lists by index."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        return {str(name): _words(inner) for name, inner in value.items()}
    return str(value).lower()


def first_problem(cls: type[Config], error: ValidationError) -> str:
    """Return one line that says what is wrong with the first invalid setting."""
    return problem(cls, error.errors(include_url=False)[0])


def problem(cls: type[Config], details: ErrorDetails) -> str:
    """Return one validation error as one line."""
    path = [str(part) for part in details["loc"]]
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        names = _fields_at(cls, path[:-1])
        return f"unknown setting {quoted(name)}{nearest(path[-1], names)}"
    # Drop names of types, as in vocab_size.constrained-int, of settings with several types.
    name = ".".join(part for part in path if part.isidentifier() or part.isdigit())
    message = details["msg"].removeprefix("Value error, ")[:_MESSAGE]
    if details["type"] == "value_error":
        return f"{name}: {message}" if name else message
    return f"{name}: {message[0].lower()}{message[1:]}, got {quoted(details['input'])}"


def _fields_at(cls: type[Config], path: list[str]) -> list[str]:
    """Return the names of the settings of the nested config at `path`."""
    for part in path:
        cls = _group(cls, part) or cls
    return list(cls.model_fields)


def _group(cls: type[Config], name: str) -> type[Config] | None:
    """Return the class of a group of settings, or None for a plain setting."""
    annotation = cls.model_fields[name].annotation
    options = getattr(annotation, "__args__", (annotation,))
    groups = (
        option for option in options if isinstance(option, type) and issubclass(option, Config)
    )
    return next(groups, None)
