"""Locks between processes; the kernel frees them on any death."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wirework.console import warn_once
from wirework.errors import InputError, cannot_write, reason

NO_LOCK = "WIREWORK_NO_LOCK"
"""Environment variable: set to anything but 0, no file is locked."""


@contextmanager
def locked(path: Path, what: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if absent); the kernel frees it on any death.

    The holder may delete the file: whoever waited for it then makes it anew.

    Args:
        path: the lock file.
        what: what the lock guards, for the message.
        waiting: called before waiting for another process that holds it; None: do not wait.

    Raises:
        InputError: another process holds it and it is not to be waited for, or the place or its
            file system cannot have a lock.
    """
    if no_lock():
        with _writing_lock(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        warn_once(f"locks are switched off: nothing else may use {what} meanwhile")
        yield
        return
    for last in (False, False, False, True):
        with _writing_lock(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = path.open("a")
            except FileNotFoundError:  # an earlier holder has deleted the folder just now
                if last:
                    raise
                continue
        with file:
            _lock(file, path, what, waiting)
            if _is_at(file, path) or last:
                yield
                return


@contextmanager
def _writing_lock(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if path.parent.is_file():
            raise InputError(f"{path.parent} is a file: it should be a folder") from None
        raise cannot_write(path, error) from error


def _is_at(file: IO[str], path: Path) -> bool:
    """Return whether an open file is the one at `path`, not one that was deleted meanwhile."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def no_lock() -> bool:
    """Return whether the user has switched locks off."""
    return os.environ.get(NO_LOCK, "0") not in ("", "0")


def _lock(file: IO[str], path: Path, what: str, waiting: Callable[[], None] | None = None) -> None:
    """Lock an open file for this process alone.

    Args:
        file: open for writing; closing it frees the lock.
        path: where it lies.
        what: what the lock guards, for the message.
        waiting: called before waiting for another process that holds it; None: do not wait.

    Raises:
        InputError: another process holds it and it is not to be waited for, or the file system
            cannot lock.
    """
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise InputError(f"{what} is in use by another process") from None
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise InputError(
            f"cannot lock {path}: {reason(error)}. If its file system has no locks, --no-lock "
            f"(or {NO_LOCK}=1) goes on without; then nothing else may use {what} meanwhile"
        ) from error
