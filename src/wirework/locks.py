"""Locks between processes: `filelock`, with removal of the lock file and one-line messages.

The kernel releases a lock when its holder ends for any reason.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wirework.console import warn_once
from wirework.errors import InputError, cannot_write, reason
from wirework.file_system import NOT_ORDINARY

if TYPE_CHECKING:
    from filelock import FileLock

NO_LOCK = "WIREWORK_NO_LOCK"
"""Environment variable that switches locks off, if set to anything but 0."""

_ATTEMPTS = 100
"""How often the folder of a lock file may disappear during a wait for the lock."""
_POLL_SECONDS = 0.01
"""Seconds between attempts on a lock that another process holds."""


@contextmanager
def locked(
    path: Path,
    guarded: str,
    on_wait: Callable[[], None] | None = None,
    timeout: float = 0,
) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, created if absent, for the block.

    At the end the holder removes the file, and the folders that were created for it if they hold
    nothing else. A process that waited for the removed file creates it again. Where another process
    takes the lock between the two removals, an empty folder stays.

    Args:
        path: the lock file.
        guarded: name of the locked object, for the messages.
        on_wait: called once before an unlimited wait for another process; None to wait at most
            `timeout`.
        timeout: seconds to wait, without `on_wait`.

    Raises:
        InputError: another process holds the lock after `timeout`, the file cannot be created, or
            its file system cannot lock.
    """
    with _folders_removed(path) as created:
        if no_lock():
            with suppress(FileExistsError):  # the next write to the folder reports the error
                _create_folder(path, created)
            warn_once(f"locks are switched off: nothing else may use {guarded} meanwhile")
            yield
            return
        lock, status = _acquired(path, guarded, on_wait, timeout, created)
        try:
            yield
        finally:
            if _is_removable(path, status):  # before the release: only the holder may remove it
                with suppress(OSError):
                    path.unlink()
            lock.release()


def no_lock() -> bool:
    """Return whether the user has switched locks off."""
    return os.environ.get(NO_LOCK, "0") not in ("", "0")


@contextmanager
def _folders_removed(path: Path) -> Iterator[set[Path]]:
    """Yield a set for folders created for a lock file; at the end remove those that are empty."""
    created: set[Path] = set()
    with suppress(OSError):  # creating the lock file reports an unusable folder
        if list(path.parent.iterdir()) == [path]:  # a holder was killed before it wrote anything
            created = {path.parent}
    try:
        yield created
    finally:
        with suppress(OSError):  # raised at the first folder that is not empty
            for folder in sorted(created, reverse=True):  # the inner ones first
                folder.rmdir()


def _create_folder(path: Path, created: set[Path]) -> None:
    """Create the folder of a lock file, and add each folder that did not exist to `created`."""
    created.update(folder for folder in path.parents if not os.path.lexists(folder))
    path.parent.mkdir(parents=True, exist_ok=True)


def _acquired(
    path: Path,
    guarded: str,
    on_wait: Callable[[], None] | None,
    timeout: float,
    created: set[Path],
) -> tuple["FileLock", os.stat_result]:
    """Return the lock, held, and the status of its file; add created folders to `created`."""
    from filelock import FileLock, Timeout  # here, since its import takes 40 ms

    held: list[os.stat_result] = []
    lock = FileLock(
        os.path.realpath(path),  # filelock refuses a symbolic link
        poll_interval=_POLL_SECONDS,
        thread_local=False,
        # With this hook filelock never falls back to a soft lock, which outlives a killed holder.
        on_acquired=lambda descriptor: held.append(_ordinary(path, os.fstat(descriptor))),
    )
    with _translated(path, guarded):
        for _ in range(_ATTEMPTS):
            try:
                _create_folder(path, created)
                lock.acquire(timeout=timeout)
                return lock, held[-1]
            except Timeout:
                if on_wait is None:
                    raise
                on_wait()
                on_wait, timeout = None, -1
            except (FileNotFoundError, FileExistsError) as error:
                missing = error  # the holder removed the folder just now, or it cannot be created
        raise missing


@contextmanager
def _translated(path: Path, guarded: str) -> Iterator[None]:
    """Turn errors of filelock and of the system into an `InputError`."""
    try:
        yield
    except TimeoutError:
        if not _has_links(path):
            raise _cannot_lock(path, guarded, "its file system counts no links") from None
        raise InputError(f"{guarded} is in use by another process") from None
    except OSError as error:
        if path.parent.is_file():
            raise InputError(f"{path.parent} is a file: it should be a folder") from None
        if error.filename is not None:  # opening failed; errors of locking name no file
            raise cannot_write(path, error) from error
        raise _cannot_lock(path, guarded, reason(error)) from error


def _cannot_lock(path: Path, guarded: str, why: str) -> InputError:
    return InputError(
        f"cannot lock {path}: {why}. If its file system has no locks, use --no-lock "
        f"(or {NO_LOCK}=1); then nothing else may use {guarded} meanwhile"
    )


def _has_links(path: Path) -> bool:
    """Return whether the file has a link count; without one filelock never takes the lock."""
    try:
        return path.stat().st_nlink > 0
    except OSError:  # its holder has just removed it
        return True


def _ordinary(path: Path, status: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot write {path}: {NOT_ORDINARY}")
    return status


def _is_removable(path: Path, held: os.stat_result) -> bool:
    """Return whether the file at `path` is the one that was locked, empty and not a link.

    A user's file at the path stays. So does a new lock file, which another process may hold.
    """
    with suppress(OSError):
        return os.path.samestat(held, path.lstat()) and held.st_size == 0
    return False
