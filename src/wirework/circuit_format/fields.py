"""Types of single fields, and the base of all parts, of the JSON files that wirework reads."""

import math
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wirework.errors import InputError, quoted

_P = TypeVar("_P", bound=BaseModel)

_MESSAGE_LENGTH = 200
_SETTINGS_DEPTH = 20

Text = Annotated[str, Field(max_length=100_000)]
"""A name: bounded, and without lone surrogates, which pydantic refuses in bounded text.

Token texts are not bounded and may have lone surrogates; they are escaped where they are shown.
"""
Index = Annotated[int, Field(ge=0, lt=2**31)]
Size = Annotated[int, Field(ge=1, lt=2**31)]
Large = Annotated[int, Field(ge=0, lt=2**53)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Loss = Annotated[float, Field(allow_inf_nan=False)]
"""Nats."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A fraction, such as that of repeated searches that find a part of a circuit again."""


class Part(BaseModel):
    """Base of all parts of a file: frozen, finite numbers only, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def checked(kind: type[_P], values: Any, where: str) -> _P:
    """Return values that were read from a JSON file as a typed part.

    Args:
        kind: type of the part.
        values: the values, as `json` returns them.
        where: the file, for the message.

    Raises:
        InputError: a value is missing, wrong or out of bounds; the message names the first one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))[:_MESSAGE_LENGTH]
        message = problem["msg"].removeprefix("Value error, ")
        said = ": ".join(part for part in (where, place, message) if part)
        raise InputError(" ".join(said.split())) from None


def json_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings of any kind unchanged, if they can be written as JSON again.

    Raises:
        ValueError: a number is not finite, a text has a lone surrogate, or values are nested too
            deeply.
    """
    pending: list[tuple[Any, int]] = [(values, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _SETTINGS_DEPTH:
            raise ValueError(f"values are nested more than {_SETTINGS_DEPTH} deep")
        if isinstance(value, dict):
            pending += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list | tuple):
            pending += [(inner, depth + 1) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        elif isinstance(value, str) and not value.isascii():
            _check_unicode(value)
    return values


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{quoted(text)} holds half a character") from None
