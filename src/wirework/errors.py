"""`InputError`: the error for inputs that cannot be used, as opposed to defects of wirework.

The library raises `InputError`; the command prints its message as one line and exits with code 2.
Any other error is a defect of wirework and is printed with its traceback.
Errors of other libraries become `InputError` where the library is called (`translated_errors`).
"""

import errno
import os
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from wirework.partial_names import final_place
from wirework.redaction import redact

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REASON_LENGTH = 200
_QUOTE_LENGTH = 80


class InputError(ValueError):
    """An input cannot be used. The message is one line: what was wanted, what came, and where.

    Known secrets in the message are replaced by `***`, since it is printed and saved in files as
    the reason for a missing result. Invisible and direction-changing characters are escaped,
    because names and values may come from untrusted files.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(redact(message)))


class UnreadableError(InputError):
    """The system failed to read a file. It may be intact, so nothing is deleted because of it."""


class DamagedError(InputError):
    """A file is readable but incomplete or altered."""


class DiskFullError(InputError):
    """The disk is full; files written before are complete."""


def printable(text: str) -> str:
    """Return text with invisible and direction-changing characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string.

    Args:
        name: the unknown name.
        known: the valid names.
    """
    match = get_close_matches(name[:_QUOTE_LENGTH], list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


_WITH_PARTS = (list, tuple, dict, set, frozenset)
_PARTS = reprlib.Repr()
"""Shows values of few levels and parts, but long texts, so that no known secret in one is cut."""
_PARTS.maxlevel = 4
_PARTS.maxlist = _PARTS.maxtuple = _PARTS.maxdict = _PARTS.maxset = _PARTS.maxfrozenset = 12
_PARTS.maxstring = _PARTS.maxother = _PARTS.maxlong = 4_000


def quoted(value: object) -> str:
    """Return `repr(value)` for a message, cut to 80 characters, without known secrets."""
    try:
        # Values with parts may be nested so that their whole text never ends.
        text = redact(_PARTS.repr(value) if isinstance(value, _WITH_PARTS) else repr(value))
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "an integer too long to print"
    except RecursionError:
        return "a value nested too deeply to print"
    return text if len(text) <= _QUOTE_LENGTH else f"{text[: _QUOTE_LENGTH - 3]}..."


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: `1 pair`, `20 pairs`.

    Args:
        count: the number.
        noun: a noun in the singular whose plural ends in `s` (also `entry` and `process`).
    """
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        noun = f"{noun[:-1]}ie"
    return f"{count} {noun}{'e' if noun.endswith('s') else ''}s"


def reason(error: BaseException) -> str:
    """Return the message of an error on one line, cut to 200 characters; its type if it has none.

    Known secrets in it are replaced by `***`. The type is added if the message alone says little,
    as for a `KeyError`.
    """
    system = getattr(error, "strerror", None)
    text = redact(" ".join(str(system or error).split()))
    kind = type(error).__name__
    if not text:
        return kind
    if isinstance(error, LookupError | AttributeError | TypeError | AssertionError):
        text = f"{kind}: {text}"
    return text if len(text) <= _REASON_LENGTH else f"{text[: _REASON_LENGTH - 3]}..."


def cannot_write(path: Path, error: OSError, size: int | None = None) -> InputError:
    """Return the error for a path that cannot be written to; `DiskFullError` if the disk is full.

    Args:
        path: the file or folder; of a temporary name, the message has the final one.
        error: the error of the system.
        size: number of bytes to write, if known.
    """
    place = final_place(path)
    if isinstance(error, FileNotFoundError) and not path.is_absolute() and has_no_folder():
        return InputError(f"cannot write {place}: the working folder is gone; change to another")
    if error.errno not in _FULL:
        return InputError(f"cannot write {place}: {reason(error)}")
    needed = [] if size is None else [f"{size:,} bytes needed"]
    free = [f"{_free_bytes(path):,} free"] if error.errno == errno.ENOSPC else []
    room = f" ({', '.join(needed + free)})" if needed or free else ""
    return DiskFullError(f"cannot write {place}: {reason(error)}{room}")


def _free_bytes(path: Path) -> int:
    """Return the free bytes on the file system of a path, which need not exist."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize


def has_no_folder() -> bool:
    """Return whether the working directory has been deleted."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


@contextmanager
def translated_errors(message_start: str) -> Iterator[None]:
    """Turn any error that another library raises in the block into an `InputError`.

    For calls in which a library reads a foreign file, model or server; such libraries raise classes
    that cannot be listed. The block must contain the library's call only, so that a defect of ours
    is not reported as bad input. The original error is kept as the cause (`--debug` shows it).

    Args:
        message_start: for example `cannot read weights.pt`.

    Raises:
        InputError: `message_start`, a colon, and the library's reason.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{message_start}: not enough memory") from error
    except Exception as error:
        raise InputError(f"{message_start}: {reason(error)}") from error
