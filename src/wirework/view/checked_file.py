"""Read a JSON file into a type that says what must be in it."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from wirework.circuit_format import Part
from wirework.errors import InputError
from wirework.files import read_json
from wirework.view.text import plain

_Kind = TypeVar("_Kind", bound=Part)
_LONGEST = 80


def read_checked(path: Path, kind: type[_Kind]) -> _Kind:
    """Read a JSON file that holds such a part.

    Raises:
        InputError: missing, damaged, or without what the part needs; the message names the place.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:_LONGEST] for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        said = plain(": ".join(part for part in (place, what) if part))
        raise InputError(f"{path}: {said}") from None
