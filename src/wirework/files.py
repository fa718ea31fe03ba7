"""Atomic writes, checksums, and checks of output paths.

Every file is written under a temporary name in the same folder, flushed to the disk and renamed. A
kill at any moment leaves either the old file or the new one. Only `save_tensors` needs torch.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from wirework.errors import (
    DamagedError,
    InputError,
    UnreadableError,
    cannot_write,
    quoted,
    reason,
)
from wirework.file_system import NOT_ORDINARY, open_ordinary, set_mode, sync_dir, sync_file
from wirework.leftovers import clear_leftovers, is_leftover
from wirework.locks import locked as locked
from wirework.partial_names import beside

if TYPE_CHECKING:
    from safetensors import SafetensorError
    from torch import Tensor

CHECKSUMS = "checksums.json"
"""Name of the file with the SHA-256 of the other files in its folder."""
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

JSON_BYTES = 1 << 28
"""Largest JSON file that is read, 256 MiB."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex, read in bounded memory.

    Raises:
        InputError: the file is not there, or cannot be read (`UnreadableError`).
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open an ordinary file for reading. All files are opened with this function.

    It never blocks on a pipe or reads endlessly from a device. A system error in the block becomes
    an error that names the file.

    Raises:
        InputError: missing, unreadable (`UnreadableError`), or a folder, pipe or device
            (`DamagedError`).
    """
    if "\0" in str(path):
        raise InputError(f"cannot read {path}: there is a NUL in its name")
    is_file(path)  # devices are not even opened
    try:
        with open_ordinary(path) as file:
            yield file
    except OSError as error:
        raise cannot_read(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InputError: the file is not there, or cannot be read (`UnreadableError`).
    """
    with opened(path) as file:
        return file.read()


def exists(path: str | Path) -> bool:
    """Return whether a path exists; False for a name that no file can have."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Return whether a file exists; anything but an ordinary file at the path is an error.

    Raises:
        DamagedError: the path is a folder, a pipe, a device or a circular link.
        UnreadableError: the system cannot tell.
    """
    try:
        mode = path.stat().st_mode
    except ValueError:  # a NUL in the name
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedError(f"cannot read {path}: its links lead in a circle") from error
        if error.errno in _ABSENT:
            return False
        raise cannot_read(path, error) from error
    if stat.S_ISDIR(mode):
        raise DamagedError(f"cannot read {path}: {os.strerror(errno.EISDIR)}")
    if not stat.S_ISREG(mode):
        raise DamagedError(f"cannot read {path}: {NOT_ORDINARY}")
    return True


def entries(folder: Path) -> list[str]:
    """Return the sorted names of the entries of a folder; an empty list without a folder.

    Raises:
        UnreadableError: the system cannot tell.
    """
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise cannot_read(folder, error) from error


def cannot_read(path: Path, error: OSError) -> InputError:
    """Return the error for a file that cannot be read; `UnreadableError` unless it is missing."""
    absent = error.errno in (*_ABSENT, errno.EISDIR)
    return (InputError if absent else UnreadableError)(f"cannot read {path}: {reason(error)}")


@contextlib.contextmanager
def atomic(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `path` when the block ends without error.

    Args:
        path: path of the file.
        size: number of bytes to be written, if known, for the message about a full disk.

    Raises:
        InputError: the path cannot be written to (permissions, full disk, a folder at the path).
    """
    partial = beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                sync_file(file, path)
            partial.replace(path)
            sync_dir(path.parent)
        finally:  # before the free space is told
            with contextlib.suppress(OSError):  # must not hide why the file was not written
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error, size) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once, atomically."""
    with atomic(path, len(content)) as file:
        file.write(content)


def path_text(path: str | Path | None) -> str | None:
    """Return a path as text for a file, or None if it is not valid UTF-8."""
    if path is None or any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        return None
    return str(path)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file at once, atomically."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))  # paths may not be valid UTF-8


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are errors."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_whole(path: Path, most: int) -> str:
    """Read an ordinary UTF-8 file of at most `most` bytes.

    A byte-order mark at the beginning is dropped.

    Raises:
        InputError: missing, unreadable, a folder, pipe or device, too large, or not UTF-8.
    """
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} is too large: more than {most:,} bytes are not read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not UTF-8 text: byte {error.start}") from None


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        most: maximum size in bytes.

    Raises:
        InputError: the file is missing, unreadable, too large or not JSON (NaN and infinity are
            not), or a name occurs twice.
    """
    text = read_whole(path, most)
    try:
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not valid JSON: {reason(error)}") from error


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{quoted(twice)} is given twice")
    return values


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write names with values as JSON, atomically, with a checksum under `sha256`.

    The entry `checksum` marks the file, so that one without `sha256` is not read as an older file.
    """
    plain = json.loads(json.dumps({**values, "checksum": "sha256"}))  # as it will be read
    write_json(path, {**plain, "sha256": _digest(plain)})


def read_record(
    path: Path,
    needed: Mapping[str, type] = MappingProxyType({}),
    *,
    unsigned: bool = False,
    most: int = JSON_BYTES,
) -> dict[str, Any]:
    """Read a file of `write_record`, without the entries of the checksum.

    Args:
        path: the file.
        needed: required names, with the types of their values.
        unsigned: also accept a file without a checksum, as older versions wrote it. Such a file has
            no entry `checksum` and no `version` above 1.
        most: maximum size in bytes.

    Raises:
        InputError: the file is missing, unreadable (`UnreadableError`) or damaged (`DamagedError`):
            not JSON, at odds with its checksum, or without a required name.
    """
    record = read_json(path, most)
    if not isinstance(record, dict):
        raise DamagedError(f"{path} is damaged: it does not map names to values; delete it")
    expected = record.pop("sha256", None)
    if expected is None and not (unsigned and _is_old(record)):
        raise DamagedError(f"{path} is damaged: it has no checksum; delete it")
    if expected is not None and expected != _digest(record):
        raise DamagedError(f"{path} is damaged: it does not match its checksum; delete it")
    record.pop("checksum", None)
    for name, kind in needed.items():
        if not isinstance(record.get(name), kind):
            raise DamagedError(f"{path} is damaged: expected {name!r} ({kind.__name__}); delete it")
    return record


def _is_old(record: Mapping[str, Any]) -> bool:
    """Return whether a record was written by a version without checksums."""
    return "checksum" not in record and record.get("version", 1) == 1


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it then replaces `path` in one rename.

    Its files get the same mode, and `checksums.json` covers all of them; `verify_dir` checks it. If
    `path` is a link, its target is replaced.

    Raises:
        InputError: the path cannot be written to.
    """
    path = _target(path)
    partial, stale = beside(path), beside(path, "stale")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            files = sorted(file for file in partial.rglob("*") if file.is_file())
            sums = {str(file.relative_to(partial)): sha256(file) for file in files}
            write_json(partial / CHECKSUMS, sums)
            mode = (partial / CHECKSUMS).stat().st_mode
            for file in files:
                set_mode(file, mode)  # safetensors creates a file with mode 600
                with file.open("rb") as handle:
                    sync_file(handle, file)
            sync_dir(partial)
            if path.exists():
                path.rename(stale)
            partial.rename(path)
            sync_dir(path.parent)
        finally:  # before the free space is told
            if os.path.lexists(stale) and not os.path.lexists(path):  # between the two renames
                stale.rename(path)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(stale, ignore_errors=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def save_tensors(
    path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file without a copy in memory; only inside an `atomic_dir`.

    Args:
        path: path in the folder being filled.
        tensors: contiguous tensors that share no memory.
        metadata: metadata for the file's header.

    Raises:
        InputError: the path cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as error:
        path.unlink(missing_ok=True)  # before the free space is told
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        raise cannot_write(path, _system_error(error), size) from error


def _system_error(error: "SafetensorError") -> OSError:
    """Return the system's error that safetensors reports as text."""
    match = re.search(r"\(os error (\d+)\)", str(error))
    return (
        OSError(str(error)) if match is None else OSError(int(match[1]), os.strerror(int(match[1])))
    )


def tensors_checksum(tensors: Mapping[str, "Tensor"], header: Mapping[str, str]) -> str:
    """Return SHA-256 over tensors on the CPU and the header of their file, as hex."""
    shapes = [[name, list(tensors[name].shape)] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([sorted(header.items()), shapes]).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def verify_dir(path: Path, needed: Iterable[str] = ()) -> None:
    """Check that a folder of `atomic_dir` is complete and every checksum matches.

    Args:
        path: the folder.
        needed: files that must have a checksum.

    Raises:
        DamagedError: names the first file that is missing or differs.
        UnreadableError: a file cannot be read.
    """
    if not is_file(path / CHECKSUMS):
        raise DamagedError(
            f"cannot read {path / CHECKSUMS}: No such file or directory. Without it nobody can "
            f"tell whether {path} is whole: take a copy that has it, or make {path.name} again"
        )
    sums = read_json(path / CHECKSUMS)
    if not isinstance(sums, dict) or not sums:
        raise DamagedError(f"{path / CHECKSUMS} does not map names to checksums")
    if missing := set(needed) - sums.keys():
        raise DamagedError(f"{path / CHECKSUMS} is damaged: it lacks {min(missing)}")
    for name, expected in sums.items():
        _verify(path, name, expected)


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write `checksums.json` for some files of a folder that `atomic_dir` did not write."""
    write_json(folder / CHECKSUMS, {name: sha256(folder / name) for name in names})


def verify_listed(path: Path, *, needed: bool = False) -> None:
    """Check a file against the `checksums.json` beside it, if there is one that lists the file.

    Args:
        path: the file.
        needed: refuse a file that is not listed.

    Raises:
        DamagedError: the file is missing, differs, or is not listed although `needed`.
        UnreadableError: it cannot be read.
    """
    expected = _sums(path.parent).get(path.name)
    if isinstance(expected, str) and len(expected) == 64:  # other programs may use other checksums
        _verify(path.parent, path.name, expected)
    elif needed:
        raise DamagedError(f"{path.parent} is damaged: no checksum of {path.name}")


def _verify(folder: Path, name: str, expected: str) -> None:
    file = folder / name
    if not is_file(file):
        raise DamagedError(f"{folder} is damaged: {name} is missing")
    if sha256(file) != expected:
        raise DamagedError(f"{folder} is damaged: {name} does not match its checksum")


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder, without unfinished files; an empty set without a folder.

    Raises:
        UnreadableError: the system cannot tell.
    """
    return {name for name in entries(folder) if not is_leftover(name)}


def check_place(path: Path) -> None:
    """Check that a file or folder can be created at `path`, before the work that fills it.

    Unfinished files of killed processes are removed.

    Raises:
        InputError: it cannot be created.
    """
    try:  # by creating one: permissions are not decisive for root and special file systems
        absolute = path.absolute()
        above = next(parent for parent in absolute.parents if os.path.lexists(parent))
        trial = beside(above / (absolute.name or "file"))
        with contextlib.suppress(FileExistsError):
            trial.mkdir()
            trial.rmdir()
    except OSError as error:
        raise cannot_write(path, error) from error
    clear_leftovers(path)


def check_file(path: Path) -> None:
    """Check that a file can be written at `path`, before the work that makes its content.

    Raises:
        InputError: it cannot be written, or the path is a folder.
    """
    check_place(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")


def check_folder(path: Path, content: str, needed: Iterable[str]) -> None:
    """Check that `atomic_dir` can create or replace a folder without deleting other files.

    Args:
        path: a path without a file or folder, an empty folder, or a folder that `atomic_dir` wrote,
            with no file added to it.
        content: content of the folder, for the message: "a model".
        needed: files that distinguish such a folder from others that `atomic_dir` writes.

    Raises:
        InputError: the path has other content or cannot be written to.
    """
    path = _target(path)
    check_place(path)
    if not os.path.lexists(path) or (path.is_dir() and not entries(path)):
        return
    sums = _sums(path)
    if not set(needed) <= sums.keys():
        raise InputError(f"{path} exists and is not {content}: not overwritten")
    held = {
        entry.relative_to(path).as_posix()
        for entry in path.rglob("*")
        if entry.is_symlink() or not entry.is_dir()
    }
    if others := held - sums.keys() - {CHECKSUMS}:
        raise InputError(f"{path} holds {min(others)} besides {content}: not overwritten")


def _target(path: Path) -> Path:
    """Return the target of a link, existing or not, and any other path unchanged."""
    try:
        return path.resolve() if path.is_symlink() else path
    except RuntimeError:  # raised by pathlib before Python 3.13
        raise InputError(f"cannot write {path}: its links lead in a circle") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"cannot write {path}: its links lead in a circle") from None
        raise cannot_write(path, error) from error


def _sums(folder: Path) -> dict[str, str]:
    """Return the checksums of a folder that `atomic_dir` wrote; empty for another."""
    if is_file(folder / CHECKSUMS):
        with contextlib.suppress(DamagedError):
            checksums = read_json(folder / CHECKSUMS)
            if isinstance(checksums, dict):
                return checksums
    return {}
