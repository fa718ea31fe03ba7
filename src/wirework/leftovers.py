"""Names of what is being written, and the removal of what a kill left under such names.

A file is written as `.NAME.HOST-PID.partial` beside its place; a folder that is replaced waits as
`.NAME.HOST-PID.stale`. HOST identifies the machine or container, so that the process can be looked
up; older versions left it out. A NAME that would become too long is cut, with a hash at its end.
"""

import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from wirework.locks import no_lock

_LONGEST = 200
"""Most bytes of NAME: file systems take names of 255, and the rest has at most 29."""
_CUT = re.compile(r".+~[0-9a-f]{8}")
_NAME = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<host>[0-9a-f]{8})-)?(?P<pid>\d{1,10})\.(?P<kind>partial|stale)"
)


def beside(path: Path, kind: str = "partial") -> Path:
    """Return where this process keeps a file or folder while `path` is not to be touched.

    Args:
        path: the final place.
        kind: `partial` for what is being written, `stale` for what it replaces.
    """
    return path.with_name(f".{_cut(path.name)}.{_host()}-{os.getpid()}.{kind}")


def _cut(name: str) -> str:
    """Return a name, or its beginning and a hash where it is too long."""
    content = os.fsencode(name)
    if len(content) <= _LONGEST:
        return name
    ending = f"~{zlib.crc32(content):08x}"
    while len(os.fsencode(name)) > _LONGEST - len(ending):
        name = name[:-1]
    return name + ending


def is_leftover(name: str) -> bool:
    """Return whether a file's name is of those that `beside` gives."""
    return _NAME.fullmatch(name) is not None


def clear_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left of writing `path`.

    If one was killed while it replaced a folder, the old folder is put back.
    """
    _clear(path.parent, path, alone=False)


def clear_held(folders: Iterable[Path]) -> None:
    """Remove what killed processes left in folders whose lock the caller holds.

    What another living process of this machine is writing stays: it may put something of its own
    there, which the lock does not guard. With locks switched off only what is surely no longer
    being written is removed.
    """
    for folder in folders:
        _clear(folder, None, alone=not no_lock())


def _clear(folder: Path, place: Path | None, alone: bool) -> None:
    """Remove what was left of writing a place; None: of all places in the folder."""
    name = None if place is None else _cut(place.name)
    try:
        found = [path.name for path in folder.iterdir() if path.name[0] == "."]
    except OSError:  # none, or not to be read: whoever needs the folder says so
        return
    for entry in sorted(found, reverse=True):  # `stale` before `partial`
        match = _NAME.fullmatch(entry)
        if match is None or name not in (None, match["name"]):
            continue
        here, number = match["host"] == _host(), int(match["pid"])
        ended = here and not _is_running(number)
        if ended or (alone and (not here or number == os.getpid())):
            _remove(folder / entry, place or _place_of(folder, match["name"]), match["kind"])


def _place_of(folder: Path, name: str) -> Path | None:
    """Return what was being written under a name; None where the name was cut."""
    is_cut = len(os.fsencode(name)) > _LONGEST - 12 and _CUT.fullmatch(name)
    return None if is_cut else folder / name


def _remove(leftover: Path, place: Path | None, kind: str) -> None:
    if kind == "stale" and place is None:
        return  # it may be all there is; whoever writes that place puts it back
    if kind == "stale" and place is not None and not os.path.lexists(place):
        with suppress(OSError):
            leftover.rename(place)
    elif leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        with suppress(OSError):
            leftover.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@cache
def _host() -> str:
    """Return eight hex digits for this machine and its space of process numbers."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"
