"""Read weight files of other projects: safetensors or a pickle, in one file or in several.

Several files have an index, a JSON file that says which tensor is in which file. No code in a
pickle is run.
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
"""End of the name of an index."""
_ZIP = b"PK\x03\x04"
"""First bytes of a zip archive, the format of `torch.save`."""
_OBJECT = re.compile(r"GLOBAL (\S+)")
"""Name of the Python object in the message with which `torch.load` refuses it."""


def find_weights(folder: Path, names: Iterable[str]) -> Path:
    """Return the first weight file in a folder.

    Args:
        folder: the folder.
        names: names to look for, in order; `NAME.index.json` counts as well.

    Raises:
        InputError: the folder has none of them.
    """
    names = list(names)
    for name in names:
        for path in (folder / name, folder / f"{name}{_INDEX}"):
            if is_file(path):
                return path
    raise InputError(f"no weights in {folder}: expected {' or '.join(names)}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: `*.safetensors`, an index `*.index.json`, or a pickle of any other name.

    Returns:
        Tensors by name, with the dtype and layout of the file, on the CPU.

    Raises:
        InputError: the file is missing, unreadable, damaged or not a file of weights.
    """
    if path.name.endswith(_INDEX):
        return _read_parts(path)
    return read_tensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Read all files that an index names, which must be in its folder."""
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
    """Read a state dict that `torch.save` wrote, without running code in it."""
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
    has_names = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not has_names or not all(isinstance(value, Tensor) for value in state.values()):
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
        damaged_entry = archive.testzip()
    if damaged_entry is not None:
        raise damaged(path, f"{damaged_entry} in it does not match its checksum")


def _why(error: Exception) -> str:
    """Return the library's reason, without its advice to load the file with code execution."""
    text = str(error)
    if refused := _OBJECT.search(text):
        return f"it holds the Python object {refused[1]}, which is not loaded"
    _, _, details = text.partition("WeightsUnpickler error:")
    return " ".join(details.split("Check the documentation")[0].split()) or reason(error)
