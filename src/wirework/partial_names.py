"""Temporary names of files and folders that are being written.

A file is written as `.NAME.HOST-PID.partial` beside its place; a folder that is replaced waits as
`.NAME.HOST-PID.stale`. HOST identifies the machine or container, so that the process can be looked
up; older versions left it out. A NAME that would become too long is cut, with a hash at its end. A
corpus that is being prepared lies in `.NAME.partial`, which the next call goes on with.
"""

import os
import re
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

LONGEST = 200
"""Most bytes of NAME: file systems take names of 255, and the rest has at most 29."""

PATTERN = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d{1,10})\.(?P<kind>partial|stale)"
)
_PREPARED = re.compile(r"\.(?P<name>.+)\.partial")
_CUT = re.compile(r".+~[0-9a-f]{8}")


def beside(path: Path, kind: str = "partial") -> Path:
    """Return where this process keeps a file or folder while `path` is not to be touched.

    Args:
        path: the final place.
        kind: `partial` for what is being written, `stale` for what it replaces.
    """
    return path.with_name(f".{cut(path.name)}.{host()}-{os.getpid()}.{kind}")


def final_place(path: Path) -> Path:
    """Return where a path will lie once what is being written has its own name."""
    return Path(*map(_final_name, path.parts))


def _final_name(part: str) -> str:
    match = PATTERN.fullmatch(part) or _PREPARED.fullmatch(part)
    return part if match is None else match["name"]


def cut(name: str) -> str:
    """Return a name, or its beginning and a hash where it is too long."""
    content = os.fsencode(name)
    if len(content) <= LONGEST:
        return name
    ending = f"~{zlib.crc32(content):08x}"
    while len(os.fsencode(name)) > LONGEST - len(ending):
        name = name[:-1]
    return name + ending


def is_cut(name: str) -> bool:
    """Return whether a name may be what `cut` made of a longer one."""
    return len(os.fsencode(name)) > LONGEST - 12 and _CUT.fullmatch(name) is not None


@cache
def host() -> str:
    """Return eight hex digits for this machine and its space of process numbers."""
    import socket  # errors are made without it

    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"
