"""Temporary names of files and folders that are being written.

A file is written as `.NAME.HOST-PID.partial` in its final folder. A folder that is being replaced
is kept as `.NAME.HOST-PID.stale`. HOST identifies the machine or container, so that the process can
be looked up; older versions omitted it. A NAME that is too long is cut and gets a hash at its end.
An unfinished prepared corpus is in `.NAME.partial`, and the next call continues it.
"""

import os
import re
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

LONGEST = 200
"""Maximum bytes of NAME: file names have at most 255, of which up to 29 are for the rest."""

PATTERN = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d{1,10})\.(?P<kind>partial|stale)"
)
_PREPARED = re.compile(r"\.(?P<name>.+)\.partial")
_CUT = re.compile(r".+~[0-9a-f]{8}")


def beside(path: Path, kind: str = "partial") -> Path:
    """Return the temporary path of this process for a file or folder that belongs at `path`.

    Args:
        path: the final path.
        kind: `partial` for the new content, `stale` for the content that it replaces.
    """
    return path.with_name(f".{cut(path.name)}.{host()}-{os.getpid()}.{kind}")


def final_place(path: Path) -> Path:
    """Return a path with temporary names replaced by the final ones."""
    return Path(*map(_final_name, path.parts))


def _final_name(part: str) -> str:
    match = PATTERN.fullmatch(part) or _PREPARED.fullmatch(part)
    return part if match is None else match["name"]


def cut(name: str) -> str:
    """Return a name, or its beginning and a hash if it is too long."""
    content = os.fsencode(name)
    if len(content) <= LONGEST:
        return name
    ending = f"~{zlib.crc32(content):08x}"
    while len(os.fsencode(name)) > LONGEST - len(ending):
        name = name[:-1]
    return name + ending


def is_cut(name: str) -> bool:
    """Return whether a name may be the result of `cut` for a longer one."""
    return len(os.fsencode(name)) > LONGEST - 12 and _CUT.fullmatch(name) is not None


@cache
def host() -> str:
    """Return eight hex digits that identify this machine and its process id namespace."""
    import socket  # here, since the errors module does not need it

    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"
