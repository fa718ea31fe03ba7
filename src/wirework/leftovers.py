"""Remove unfinished files of killed processes, with the names of `partial_names.py`."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from wirework.locks import no_lock
from wirework.partial_names import PATTERN, cut, host, is_cut


def is_leftover(name: str) -> bool:
    """Return whether a file name is one that `beside` returns."""
    return PATTERN.fullmatch(name) is not None


def clear_leftovers(path: Path) -> None:
    """Remove unfinished versions of `path` left by killed processes of this machine.

    If a process was killed while it replaced a folder, the old folder is restored.
    """
    _clear(path.parent, path, alone=False)


def clear_held(folders: Iterable[Path]) -> None:
    """Remove unfinished files of killed processes in folders whose lock the caller holds.

    Files of other running processes of this machine stay, since the lock may not cover them. With
    locks switched off, only files that are certainly abandoned are removed.
    """
    for folder in folders:
        _clear(folder, None, alone=not no_lock())


def _clear(folder: Path, place: Path | None, alone: bool) -> None:
    """Remove unfinished versions of a path, or of all paths in the folder if None."""
    name = None if place is None else cut(place.name)
    try:
        names = [path.name for path in folder.iterdir() if path.name[0] == "."]
    except OSError:  # missing or unreadable: the caller that needs the folder reports it
        return
    for entry in sorted(names, reverse=True):  # `stale` before `partial`
        match = PATTERN.fullmatch(entry)
        if match is None or name not in (None, match["name"]):
            continue
        here, number = match["host"] == host(), int(match["pid"])
        ended = here and not _is_running(number)
        if ended or (alone and (not here or number == os.getpid())):
            _remove(folder / entry, place or _place_of(folder, match["name"]), match["kind"])


def _place_of(folder: Path, name: str) -> Path | None:
    """Return the final path of a temporary name, or None if the name was cut."""
    return None if is_cut(name) else folder / name


def _remove(leftover: Path, place: Path | None, kind: str) -> None:
    if kind == "stale" and place is None:
        return  # it may be the only copy; the next writer of that path restores it
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
