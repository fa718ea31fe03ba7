"""Locks between processes; the kernel frees them on any death."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from wirework.console import warn_once
from wirework.errors import InputError, cannot_write, reason

NO_LOCK = "WIREWORK_NO_LOCK"
"""Environment variable: set to anything but 0, no file is locked."""


_TRIES = 100
"""How often a lock file may vanish while it is waited for; a bound where files have no identity."""
_LOOK = 0.01
"""Seconds between looks at a lock that is waited for with patience."""


@contextmanager
def locked(
    path: Path,
    what: str,
    waiting: Callable[[], None] | None = None,
    patience: float = 0,
) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if absent); the kernel frees it on any death.

    At the end the file is removed, and so are folders that were made for it and hold nothing else.
    That is safe because the holder does it: whoever waited for the file sees that it is gone, and
    makes it anew.

    Args:
        path: the lock file.
        what: what the lock guards, for the message.
        waiting: called before waiting for another process that holds it; None: do not wait longer
            than `patience`.
        patience: seconds to wait, without `waiting`.

    Raises:
        InputError: another process holds it and it is not to be waited for, or the place or its
            file system cannot have a lock.
    """
    with _folder_tidied(path):
        if no_lock():
            with _writing_lock(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            warn_once(f"locks are switched off: nothing else may use {what} meanwhile")
            yield
            return
        with _locked_file(path, what, waiting, patience) as file:
            try:
                yield
            finally:
                if _is_ours(file, path):  # else another process may hold a new one there
                    with suppress(OSError):
                        path.unlink()


@contextmanager
def _folder_tidied(path: Path) -> Iterator[None]:
    """Remove at the end the folders of a lock file that the block made and that hold nothing."""
    made = [folder for folder in path.parents if not os.path.lexists(folder)]
    with suppress(OSError):  # that it is a file, or gone meanwhile, shows when it is made
        if list(path.parent.iterdir()) == [path]:  # a holder was killed at once
            made = [path.parent]
    try:
        yield
    finally:
        with suppress(OSError):  # the first one that holds something
            for folder in made:
                folder.rmdir()


def _locked_file(
    path: Path, what: str, waiting: Callable[[], None] | None, patience: float
) -> IO[bytes]:
    """Return the open lock file; closing it frees the lock."""
    for last in (*[False] * (_TRIES - 1), True):
        with _writing_lock(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = _opened(path)
            except (FileNotFoundError, FileExistsError):  # a holder deleted the folder just now
                if last:
                    raise
                continue
        try:
            _lock(file, path, what, waiting, patience)
            if _is_at(file, path) or (last and not _is_deleted(file, path)):
                return file
            if last:
                raise InputError(f"{what} is in use by other processes")
        except BaseException:
            file.close()
            raise
        file.close()
    raise AssertionError


def _opened(path: Path) -> IO[bytes]:
    """Open a lock file, made if absent; a pipe in its place is not waited for."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666), "rb+", 0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no ordinary file")
    return file


@contextmanager
def _writing_lock(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if path.parent.is_file():
            raise InputError(f"{path.parent} is a file: it should be a folder") from None
        raise cannot_write(path, error) from error


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file is the one at `path`, not one that was deleted meanwhile."""
    try:
        held = os.fstat(file.fileno())  # fresh on a network drive too, as it was locked just now
        return held.st_nlink > 0 and os.path.samestat(held, path.stat())
    except OSError:
        return False


def _is_ours(file: IO[bytes], path: Path) -> bool:
    """Return whether a lock file is the one at `path` and may go: no link, with nothing in it."""
    return _is_at(file, path) and not path.is_symlink() and os.fstat(file.fileno()).st_size == 0


def _is_deleted(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file is surely gone, so that its lock keeps nobody out."""
    if os.fstat(file.fileno()).st_nlink > 0:
        return False
    with suppress(OSError):
        return path.stat().st_nlink > 0  # file systems that count no links say 0 of every file
    return True


def no_lock() -> bool:
    """Return whether the user has switched locks off."""
    return os.environ.get(NO_LOCK, "0") not in ("", "0")


def _lock(
    file: IO[bytes],
    path: Path,
    what: str,
    waiting: Callable[[], None] | None,
    patience: float,
) -> None:
    """Lock an open file for this process alone; the arguments are those of `locked`.

    Raises:
        InputError: another process holds it and it is not to be waited for, or the file system
            cannot lock.
    """
    until = time.monotonic() + patience
    try:
        while not _lock_now(file):
            if waiting is not None:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
                return
            if time.monotonic() >= until:
                raise InputError(f"{what} is in use by another process")
            time.sleep(_LOOK)
    except OSError as error:
        raise InputError(
            f"cannot lock {path}: {reason(error)}. If its file system has no locks, --no-lock "
            f"(or {NO_LOCK}=1) goes on without; then nothing else may use {what} meanwhile"
        ) from error


def _lock_now(file: IO[bytes]) -> bool:
    """Lock an open file unless another process holds it; say whether it was locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
