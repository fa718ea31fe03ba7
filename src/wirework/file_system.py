"""Calls that not every file system supports: flushing to the disk, changing modes.

Network drives and file systems in user space refuse some of these calls. If a refusal only reduces
safety against power cuts, a warning is given once and the work continues. Locks are in `locks.py`.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO

from wirework.console import warn_once
from wirework.errors import reason

NOT_ORDINARY = "it is no ordinary file"
"""Message about pipes, sockets and devices."""

_REFUSALS = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
}
"""Error numbers for unsupported calls, as opposed to a failure of the disk."""


def open_ordinary(path: Path) -> BufferedReader:
    """Open an ordinary file for reading; never block on a pipe at its path.

    The opened file itself is checked, not the path, which may change in between.

    Raises:
        OSError: it cannot be opened, or is a folder, pipe or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, NOT_ORDINARY)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def sync_file(file: IO[bytes], path: Path) -> None:
    """Flush an open file to the disk; warn once if the file system does not support it.

    Raises:
        OSError: the disk failed or is full.
    """
    with _optional(path, "cannot flush files to the disk: a power cut may lose the newest"):
        os.fsync(file.fileno())


def sync_dir(path: Path) -> None:
    """Flush a folder's entries if possible, so that a rename persists after a power cut.

    Raises:
        OSError: the disk failed or is full.
    """
    with _optional(path, "cannot flush folders to the disk: a power cut may lose the newest files"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_mode(path: Path, mode: int) -> None:
    """Set the mode of a file if it differs and the file system supports it."""
    if path.stat().st_mode != mode:
        with _optional(path, "cannot change who may read a file"):
            path.chmod(mode)


@contextmanager
def _optional(path: Path, lack: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        warn_once(f"the file system at {_mount_of(path)} {lack} ({reason(error)})")


def _mount_of(path: Path) -> Path:
    """Return the folder at which a path's file system is mounted."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if os.path.ismount(place))
