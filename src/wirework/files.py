"""Files that are whole or absent: atomic writes, checksums, locks.

Every file of ours is written beside its place, flushed to the disk and renamed, so that a kill at
any moment leaves either the old file or the new one. Nothing here loads torch but `save_tensors`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from wirework.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_SUMS = "checksums.json"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_dir(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `path` whole, when the block ends without error.

    Raises:
        InputError: the place cannot be written to (permissions, full disk, a folder in the way).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_dir(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(NotADirectoryError):  # a file stands where a folder should
            partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once, atomically."""
    with atomic(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file at once, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity, which JSON lacks, raise."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, with a byte order mark or without.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write names with values as JSON, atomically, with a checksum under `sha256`."""
    plain = json.loads(json.dumps(values))  # as it will be read: names are text, no tuples
    write_json(path, {**plain, "sha256": _digest(plain)})


def read_record(path: Path) -> dict[str, Any]:
    """Read what `write_record` wrote, without the checksum.

    Raises:
        InputError: the file is missing, unreadable, not JSON, or does not match its checksum.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.pop("sha256", None) != _digest(record):
        raise InputError(f"{path} is damaged: it does not match its checksum; delete it")
    return record


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which then replaces `path` in one rename, with checksums.

    The folder gets a `checksums.json` over all its files, all of one mode; `verify_dir` checks it.
    A link stays, and what it points to is replaced.

    Raises:
        InputError: the place cannot be written to.
    """
    path = _target(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    stale = path.with_name(f".{path.name}.{os.getpid()}.stale")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        sums = {str(file.relative_to(partial)): sha256(file) for file in files}
        write_json(partial / _SUMS, sums)
        mode = (partial / _SUMS).stat().st_mode
        for file in files:
            file.chmod(mode)  # safetensors makes a private file
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        sync_dir(partial)
        if path.exists():
            path.rename(stale)
        partial.rename(path)
        sync_dir(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if stale.exists() and not path.exists():  # stopped between the two renames
            stale.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(stale, ignore_errors=True)


def save_tensors(
    path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file without a copy of it in memory; only inside an `atomic_dir`.

    Args:
        path: a place in the folder being filled.
        tensors: contiguous, none sharing memory with another.
        metadata: for the file's header.

    Raises:
        OSError: the place cannot be written to; `atomic_dir` makes the message of it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def tensors_checksum(tensors: Mapping[str, "Tensor"], header: Mapping[str, str]) -> str:
    """Return SHA-256 over tensors on the CPU and the header of their file, as hex."""
    shapes = [[name, list(tensors[name].shape)] for name in sorted(tensors)]
    digest = hashlib.sha256(json.dumps([sorted(header.items()), shapes]).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def verify_dir(path: Path, needed: Iterable[str] = ()) -> None:
    """Check a folder that `atomic_dir` wrote: every file there, every checksum right.

    Args:
        path: the folder.
        needed: files that must be among those with a checksum.

    Raises:
        InputError: names the first file that is missing or differs.
    """
    sums = read_json(path / _SUMS)
    if not isinstance(sums, dict) or not sums:
        raise InputError(f"{path / _SUMS} does not map names to checksums")
    if missing := set(needed) - sums.keys():
        raise InputError(f"{path / _SUMS} is damaged: it lacks {min(missing)}")
    for name, expected in sums.items():
        file = path / name
        if not file.is_file():
            raise InputError(f"{path} is damaged: {name} is missing")
        if sha256(file) != expected:
            raise InputError(f"{path} is damaged: {name} does not match its checksum")


def names_in(folder: Path) -> set[str]:
    """Return what a folder holds, if it is one, but for what a kill left of a write."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in found if not (name.startswith(".") and name.endswith(".partial"))}


def check_place(path: Path) -> None:
    """Make sure that a file or folder can be made at `path`, before the work that fills it.

    Raises:
        InputError: it cannot.
    """
    above = next(parent for parent in path.absolute().parents if parent.exists())
    try:  # by doing it: permissions do not tell for root and for special file systems
        Path(tempfile.mkdtemp(prefix=".", dir=above)).rmdir()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def check_folder(path: Path, what: str, needed: Iterable[str]) -> None:
    """Make sure that `atomic_dir` can make a folder at `path` without losing anything but its own.

    Args:
        path: nothing, an empty folder, or one that `atomic_dir` wrote, with no file added to it.
        what: what the folder is to hold, for the message: "a model".
        needed: files that tell such a folder from what else `atomic_dir` writes.

    Raises:
        InputError: something else is there, or it cannot be written to.
    """
    path = _target(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        sums = _sums(path)
        if not set(needed) <= sums.keys():
            raise InputError(f"{path} exists and is not {what}: not overwritten")
        held = {
            entry.relative_to(path).as_posix()
            for entry in path.rglob("*")
            if entry.is_symlink() or not entry.is_dir()
        }
        if others := held - sums.keys() - {_SUMS}:
            raise InputError(f"{path} holds {min(others)} besides {what}: not overwritten")
    check_place(path)


def _target(path: Path) -> Path:
    """Return what a link points to, be it there or not, and any other path as it is."""
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError):
        raise InputError(f"cannot write {path}: its links lead in a circle") from None


def _sums(folder: Path) -> dict[str, str]:
    """Return the checksums of a folder that `atomic_dir` wrote; none of another."""
    with contextlib.suppress(InputError):
        found = read_json(folder / _SUMS)
        if isinstance(found, dict):
            return found
    return {}


@contextlib.contextmanager
def locked(path: Path, what: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if absent); the kernel frees it on any death.

    Args:
        path: the lock file.
        what: what the lock guards, for the message.
        waiting: called before waiting for another process that holds it; None: do not wait.

    Raises:
        InputError: another process holds it, and it is not to be waited for.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        if path.parent.is_file():
            raise InputError(f"{path.parent} is a file: it should be a folder") from None
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise InputError(f"{what} is in use by another process") from None
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
