"""Read pickles of plain values without running code in them.

Numbers, texts, bytes and lists, tuples, dicts of them are read. Other objects become an `Inert`
stand-in if their class is on a list that the caller gives, and are refused otherwise. No class of
the pickle is imported or called.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from wirework.errors import InputError, quoted, reason
from wirework.files import opened
from wirework.tensor_files import check_kind, damaged

PICKLE_BYTES = 1 << 24
"""Largest pickle that is read, 16 MiB."""


class Inert:
    """Stand-in for an object of a known class: its name, arguments and state, and no behaviour."""

    name: str = ""
    """Module and name of the class or function that the pickle asks for."""
    args: tuple[Any, ...] = ()
    """Arguments that it would be called with."""
    state: Any = None
    """What it would be restored from after that."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_plain_pickle(path: Path, known: Collection[str] = ()) -> Any:
    """Read a pickle of plain values.

    Args:
        path: the file.
        known: full names, such as `torch.device`, that may occur. A name that is used as a value is
            returned as a subclass of `Inert`, an object made from it as an instance of that.

    Returns:
        The value. NumPy scalars in it remain stand-ins; see `number`.

    Raises:
        InputError: the file cannot be read, is over 16 MiB or damaged, or holds an object of
            another name.
    """
    check_kind(path)
    with opened(path) as file:
        content = file.read(PICKLE_BYTES + 1)
    if len(content) > PICKLE_BYTES:
        raise InputError(f"{path} is too large for a pickle of settings: over {PICKLE_BYTES} bytes")
    try:
        _check_memo(content, path)
        return _Unpickler(content, path, known).load()
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"cannot read {path}: not enough memory") from error
    except Exception as error:  # damage raises many classes of errors in the unpickler
        raise damaged(path, f"not a whole pickle ({reason(error)})") from error


def _check_memo(content: bytes, path: Path) -> None:
    """Check that memo entries have places below the size of the pickle: a list holds all of them.

    Raises:
        InputError: one is larger, which no program writes and which would fill the memory.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and int(argument or 0) >= len(content):
            raise damaged(path, f"memo entry {argument} of {len(content)} bytes")


def number(value: Any) -> Any:
    """Return the float of a stand-in for a NumPy float64 scalar; other values unchanged."""
    if not isinstance(value, Inert) or not value.name.endswith(".multiarray.scalar"):
        return value
    kind, raw = value.args if len(value.args) == 2 else (None, None)
    is_float64 = isinstance(kind, Inert) and kind.args[:1] == ("f8",)
    if not is_float64 or not isinstance(raw, bytes) or len(raw) != 8:
        return value
    return struct.unpack("<d", raw)[0]


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with every global name replaced by a stand-in, or refused."""

    def __init__(self, content: bytes, path: Path, known: Collection[str]) -> None:
        super().__init__(io.BytesIO(content))
        self._path, self._known = path, known

    def find_class(self, module: str, name: str) -> type[Inert]:
        full = f"{module}.{name}"
        if full not in self._known:
            raise InputError(
                f"{self._path} holds the Python object {quoted(full)}, which is not loaded"
            )
        # A new class each time, so that what a pickle does to it stays in that pickle.
        return type("Inert", (Inert,), {"name": full})
