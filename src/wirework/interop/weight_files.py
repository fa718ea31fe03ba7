"""Read weight files of other projects: one safetensors file or pickle, or several with an index.

No code in a pickle is run.
"""

import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wirework.errors import InputError, reason
from wirework.files import cannot_read, is_file, opened, read_json
from wirework.memory import require_memory
from wirework.tensor_files import check_kind, damaged, read_tensors

_INDEX = ".index.json"
_ZIP = b"PK\x03\x04"
_OBJECT = re.compile(r"GLOBAL (\S+)")


def find_weights(folder: Path, names: Iterable[str]) -> Path:
    """Return the first of `names` in a folder, as a single file or as an index of several.

    Raises:
        InputError: it has none of them.
    """
    names = list(names)
    for name in names:
        for path in (folder / name, folder / f"{name}{_INDEX}"):
            if is_file(path):
                return path
    raise InputError(f"no weights in {folder}: expected {' or '.join(names)}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors by its suffix, an index of parts, else a pickle.

    Returns:
        Tensors by name, with the dtype and layout of the file, on the CPU.

    Raises:
        InputError: the file is missing, unreadable, damaged or not a file of weights.
    """
    if path.name.endswith(_INDEX):
        return _read_parts(path)
    return read_tensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_parts(index: Path) -> dict[str, Tensor]:
    values = read_json(index)
    parts = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise damaged(index, "it does not map tensors to files")
    state: dict[str, Tensor] = {}
    for part in sorted(set(parts.values())):
        if Path(part).name != part or part.endswith(_INDEX):
            raise InputError(f"{index}: {part!r} is not the name of a file beside it")
        state |= read_weights(index.parent / part)
    return state


def _read_pickle(path: Path) -> dict[str, Tensor]:
    check_kind(path)
    try:
        _check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # advice to authors of such files
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"cannot read {path}: not enough memory") from error
    except Exception as error:  # damage raises many classes of errors in the unpickler
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_read(path, error) from error
        raise InputError(f"{path} is damaged or not a PyTorch state dict: {_why(error)}") from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} is not a state dict: expected names to tensors")
    return dict(state)


def _check_archive(path: Path) -> None:
    """Check that the archive in a `.pt` is intact, which `torch.load` does not."""
    if not zipfile.is_zipfile(path):
        with opened(path) as file:
            if file.read(len(_ZIP)) == _ZIP:
                raise damaged(path, "it is cut off (a zip archive without its directory)")
        return  # the format before PyTorch 1.6 has no checksums
    with zipfile.ZipFile(path) as archive:
        require_memory(sum(entry.file_size for entry in archive.infolist()), f"reading {path}")
        spoiled = archive.testzip()
    if spoiled is not None:
        raise damaged(path, f"{spoiled} in it does not match its checksum")


def _why(error: Exception) -> str:
    """Return the library's reason, without its advice to load the file with code execution."""
    text = str(error)
    if refused := _OBJECT.search(text):
        return f"it holds the Python object {refused[1]}, which is not loaded"
    _, _, told = text.partition("WeightsUnpickler error:")
    return " ".join(told.split("Check the documentation")[0].split()) or reason(error)
