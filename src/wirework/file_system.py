"""Calls that not every file system supports: flushing to the disk, changing modes.

Network drives and file systems in user space refuse some of these calls. Where a refusal costs no
more than safety in a power cut, one warning says so and the work goes on. `locks.py` locks.
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
"""What is said of pipes, sockets and devices."""

_REFUSALS = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
}
"""What file systems answer to a call that they do not support; a disk's failure is another."""


def open_ordinary(path: Path) -> BufferedReader:
    """Open an ordinary file for reading, without waiting for a pipe that is put in its place.

    What was opened is looked at, not what lies at the path then or before.

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
    """Flush an open file to the disk; a file system that cannot is named in one warning.

    Raises:
        OSError: the disk failed or is full.
    """
    with _optional(path, "cannot flush files to the disk: a power cut may lose the newest"):
        os.fsync(file.fileno())


def sync_dir(path: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut, where it is possible.

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
    """Give a file a mode if it has another one, where that is possible."""
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
