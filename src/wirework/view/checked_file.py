"""Read a JSON file of ours into a type that says what must be in it."""

from pathlib import Path
from typing import TypeVar

from wirework.circuit_format import Part, checked
from wirework.files import read_record

_Kind = TypeVar("_Kind", bound=Part)
_BYTES = 1 << 26
"""Largest file that is read."""


def read_checked(path: Path, kind: type[_Kind]) -> _Kind:
    """Read a JSON file that holds such a part, with or without a checksum in it.

    Raises:
        InputError: missing, damaged, or without what the part needs; the message names the place.
    """
    return checked(kind, read_record(path, unsigned=True, most=_BYTES), str(path))
