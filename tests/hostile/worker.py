"""What a worker process does with a case, within limits of memory."""

import contextlib
import io
import os
import resource
import shutil
import sys
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import LOADERS, MUTATIONS, Case
from loader import Loader, Nonsense, digest
from mutation import DoesNotApply

MEMORY = 1 << 30
"""Bytes that a worker may add to what it had before its first case."""
LONGEST = 1000
"""Characters of a message that is still one line."""

REFUSED, SAME, WARNED, OTHER = "refused", "the same", "warned of", "another valid one"
SKIPPED = "does not apply"
FINE = (REFUSED, SAME, WARNED, OTHER, SKIPPED)
SILENT, TRACEBACK, UNREADABLE, CODE = "silent", "traceback", "unreadable message", "code ran"
HANG, KILLED = "hang", "process died"


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    kind: str
    detail: str = ""
    """For people: the message, or where it failed."""
    group: str = ""
    """Failures of one loader with the same kind and group are told of once."""


def limit_memory() -> None:
    """Let this process have no more than `MEMORY` besides what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def good_digest(loader: Loader, good: Path, room: Path) -> str:
    """Return the digest of a good input, of which a copy is read; without a warning."""
    _copy(good, room)
    value, said = _loaded(loader, room)
    if said:
        raise AssertionError(f"the good input of {loader.name} is warned of: {said}")
    return digest(value)


def run(case: Case, good: Path, expected: str, room: Path) -> Outcome:
    """Spoil a copy of a good input and read it.

    Args:
        case: what to do.
        good: folder of good inputs, one for each loader.
        expected: digest of the good one.
        room: folder for the copy; emptied.
    """
    loader, mutation = LOADERS[case.loader], MUTATIONS[case.mutation]
    _copy(good / case.loader, room)
    try:
        mutation.change(room / case.file, case.generator)
    except DoesNotApply:
        return Outcome(SKIPPED)
    if case.sealed and loader.seal is not None:
        if not _is_readable(room / case.file):
            return Outcome(SKIPPED)
        with contextlib.suppress(Exception):  # of many a wreck no checksum can be made
            loader.seal(room)
    outcome = _read(loader, room, expected, must_notice=_must_notice(case, loader))
    if (room / "canary").exists():
        return Outcome(CODE, "a file's code was executed")
    return outcome


def _copy(good: Path, room: Path) -> None:
    """Make a copy of a folder, in place of what was there, and go there."""
    shutil.rmtree(room, ignore_errors=True)
    shutil.copytree(good, room, symlinks=True)
    os.chdir(room)


def _is_readable(path: Path) -> bool:
    """Whether a checksum can be made of a file; of one that is not there, there is none."""
    return path.is_file() or not (path.exists() or path.is_symlink())


def _must_notice(case: Case, loader: Loader) -> bool:
    """Whether it must not be read as something else without a word."""
    if loader.may_miss(case.mutation):
        return False
    if loader.protected and not case.sealed:
        return True
    absent = case.sealed and case.mutation == "removed"  # a folder without it may be a good one
    return MUTATIONS[case.mutation].loud and not absent


def _loaded(loader: Loader, folder: Path) -> tuple[Any, str]:
    """Return what was loaded and what was said meanwhile on standard error and in warnings."""
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always", UserWarning)
        value = loader.load(folder)
    own = [str(one.message) for one in warned if issubclass(one.category, UserWarning)]
    lines = [line for line in said.getvalue().splitlines() if line.startswith("warning:")]
    return value, "; ".join([*lines, *own])


def _read(loader: Loader, folder: Path, expected: str, must_notice: bool) -> Outcome:
    from wirework.errors import InputError

    try:
        value, said = _loaded(loader, folder)
        found = digest(value)
    except InputError as error:
        return _refusal(str(error), folder)
    except Nonsense as error:
        return Outcome(SILENT, f"loaded nonsense: {error}", "nonsense")
    except BaseException as error:
        return Outcome(TRACEBACK, _place(error), f"{type(error).__name__} in {_function(error)}")
    if found == expected:
        return Outcome(SAME)
    if said:
        return Outcome(WARNED, said)
    return Outcome(SILENT, "loaded as something else") if must_notice else Outcome(OTHER)


def _refusal(message: str, folder: Path) -> Outcome:
    """Say whether a message is one line that can be read."""
    inside = message.replace(str(folder), "")
    if len(inside) > LONGEST:
        return Outcome(UNREADABLE, f"{len(message)} characters: {message[:200]}", "too long")
    if not all(c.isprintable() for c in inside):
        return Outcome(UNREADABLE, repr(message[:200]), "line ends or control characters")
    return Outcome(REFUSED, message)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if "/wirework/" in frame.filename] or frames[-1:]


def _function(error: BaseException) -> str:
    frame = _frames(error)[-1]
    return f"{Path(frame.filename).name}:{frame.name}"


def _place(error: BaseException) -> str:
    frame = _frames(error)[-1]
    message = " ".join(str(error)[:400].split())[:200]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return ascii(f"{type(error).__name__}: {message} ({where})")[1:-1]


def silence() -> None:
    """Send what libraries write past Python to nowhere, and input from nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
