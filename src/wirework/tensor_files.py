"""Read safetensors files, our own and foreign ones; an error says what is wrong with a file.

Only this module reads safetensors files. It distinguishes a failing disk (`UnreadableError`) from a
damaged file (`DamagedError`), because only the latter is a reason to look for another copy. torch
is imported only for `read_tensors`.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wirework.errors import DamagedError, InputError, reason
from wirework.files import cannot_read, opened, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LARGEST_HEADER = 100_000_000  # bytes; safetensors has the same limit
_LFS_POINTER = b"version https://git-lfs"
_NO_MEMORY = OSError(errno.ENOMEM, "not enough memory")
_T = TypeVar("_T")


class TensorInfo(NamedTuple):
    """Entry of one tensor in the header."""

    dtype: str
    """Name of the dtype in safetensors: `F32`, `I64`, ..."""
    shape: tuple[int, ...]


class Header(NamedTuple):
    """Header of a safetensors file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


def read_header(path: Path, advice: str = "") -> Header:
    """Read the header of a safetensors file and check the length of the file against it.

    Args:
        path: the file.
        advice: the way on, for the message of a file that is damaged.

    Raises:
        InputError: the file is missing, cannot be read (`UnreadableError`) or is damaged
            (`DamagedError`).
    """
    check_kind(path, advice)
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise damaged(path, "it is cut off, or no safetensors file", advice)
        text = file.read(length)
    header, end = _parsed(path, text, advice)
    data = size - 8 - length
    if data != end:
        how = f"it is cut off ({data:,} of {end:,} bytes of tensors)"
        raise damaged(
            path, how if data < end else f"{data - end:,} bytes too many at its end", advice
        )
    return header


def read_tensors(path: Path, advice: str = "") -> dict[str, "Tensor"]:
    """Read all tensors of a safetensors file, onto the CPU.

    Args:
        path: the file.
        advice: the way on, for the message of a file that is damaged.

    Raises:
        InputError: the file is missing, cannot be read (`UnreadableError`) or is damaged
            (`DamagedError`).
    """
    from safetensors.torch import load, load_file

    return _read(path, advice, load_file, load)


def read_arrays(path: Path, advice: str = "") -> dict[str, "NDArray[Any]"]:
    """Read all tensors of a safetensors file as arrays of numpy, without torch.

    Args:
        path: the file.
        advice: the way on, for the message of a file that is damaged.

    Raises:
        InputError: the file is missing, cannot be read (`UnreadableError`) or is damaged
            (`DamagedError`).
    """
    from safetensors.numpy import load, load_file

    return _read(path, advice, load_file, load)


def check_kind(path: Path, advice: str = "") -> None:
    """Refuse files that are commonly found instead of a file of weights.

    Raises:
        InputError: the file cannot be read, is empty, a git-LFS pointer, an HTML page, a pipe or a
            device.
    """
    with opened(path) as file:
        start = file.read(512)
    if not start:
        raise damaged(path, "it is empty", advice)
    if start.startswith(_LFS_POINTER):
        raise damaged(path, "it is a git-LFS pointer, not the file: run `git lfs pull`")
    if start.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise damaged(path, "it is an HTML page, not the file: download it again")


def damaged(path: Path, how: str, advice: str = "") -> DamagedError:
    """Return the error of a damaged file, with advice on what to do if there is any."""
    return DamagedError(f"{path} is damaged: {how}{f': {advice}' if advice else ''}")


def _read(
    path: Path, advice: str, by_map: Callable[[Path], _T], by_bytes: Callable[[bytes], _T]
) -> _T:
    read_header(path, advice)
    try:
        return by_map(path)
    except MemoryError:
        raise cannot_read(path, _NO_MEMORY) from _NO_MEMORY
    except Exception:  # no memory maps on the file system, or tensors at odds with the header
        return _read_whole(path, advice, by_bytes)


def _read_whole(path: Path, advice: str, by_bytes: Callable[[bytes], _T]) -> _T:
    try:
        return by_bytes(read_bytes(path))
    except InputError:
        raise
    except MemoryError:
        raise cannot_read(path, _NO_MEMORY) from _NO_MEMORY
    except Exception as error:  # the library raises many classes for an inconsistent header
        raise damaged(path, reason(error), advice) from error


def _parsed(path: Path, text: bytes, advice: str) -> tuple[Header, int]:
    """Return the header and the number of bytes of tensors that it states."""
    try:
        values: Any = json.loads(text)
        metadata = dict(values.pop("__metadata__", None) or {})
        tensors = {name: _info(entry) for name, entry in values.items()}
        end = max((int(entry["data_offsets"][1]) for entry in values.values()), default=0)
        about = {str(name): str(value) for name, value in metadata.items()}
    except (
        ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise damaged(path, "its header is not one of safetensors", advice) from error
    return Header(tensors, about), end


def _info(entry: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(entry["shape"])
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("a shape is whole numbers")
    return TensorInfo(str(entry["dtype"]), shape)
