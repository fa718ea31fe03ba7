"""Read a JSON file that wirework wrote into a checked type."""

from pathlib import Path
from typing import TypeVar

from wirework.circuit_format import Part, checked
from wirework.files import read_record

_Kind = TypeVar("_Kind", bound=Part)
_BYTES = 1 << 26
"""Largest file that is read."""


def read_checked(path: Path, kind: type[_Kind]) -> _Kind:
    """Read a JSON file, with or without a checksum in it, into a typed part.

    Args:
        path: the JSON file.
        kind: type of its content.

    Raises:
        InputError: the file is missing or damaged, or a key is missing or wrong; the message names
            the key.
    """

    return checked(kind, read_record(path, unsigned=True, most=_BYTES), str(path))
