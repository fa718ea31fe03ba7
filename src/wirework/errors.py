"""`InputError`: the one error that a user can cause, told apart from bugs by the command.

The library raises `InputError` for an input that cannot be used; the command prints it as one
line and exits with code 2. Anything else that escapes is a defect of ours and keeps its traceback.
Errors of other libraries become `InputError` where the library is called (`translated_errors`).
"""

import errno
import os
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

    Known secrets in the message are replaced by `***`: it is printed, and kept in files as the
    reason why something was not done. Characters that print nothing or turn others become escapes:
    names and values in it may be a stranger's.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(redact(message)))


class UnreadableError(InputError):
    """The system failed to read a file; it may be whole, so nothing may be deleted for it."""


class DamagedError(InputError):
    """A file was read, and it is missing a part or does not hold what was written to it."""


class DiskFullError(InputError):
    """There is no room for a file; what was written before it is whole."""


def printable(text: str) -> str:
    """Return text with escapes for characters that print nothing or turn others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string.

    Args:
        name: what the user wrote.
        known: the names that would have been understood.
    """
    match = get_close_matches(name[:_QUOTE_LENGTH], list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def quoted(value: object) -> str:
    """Return `repr(value)` for a message, cut to 80 characters, without known secrets."""
    try:
        text = redact(repr(value))
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "an integer too long to print"
    except RecursionError:
        return "a value nested too deeply to print"
    return text if len(text) <= _QUOTE_LENGTH else f"{text[: _QUOTE_LENGTH - 3]}..."


def number_of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: `1 pair`, `20 pairs`.

    Args:
        count: how many.
        noun: in the singular, of those that end in `s` in the plural (`entry` and `process` too).
    """
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        noun = f"{noun[:-1]}ie"
    return f"{count} {noun}{'e' if noun.endswith('s') else ''}s"


def reason(error: BaseException) -> str:
    """Return the message of an error on one line, cut to 200 characters; its type if it has none.

    Known secrets in it are replaced by `***`.
    The type is named too where the message alone says little, as for a `KeyError`.
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
    """Return the error for a place that could not be written to; `DiskFullError` if it is full.

    Args:
        path: the place; the name of what is being written stands for that of the file to be.
        error: what the system said.
        size: bytes that were to be written, if that is known.
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
    """Return how much may be written where a path lies or would lie."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize


def has_no_folder() -> bool:
    """Return whether the folder that this process works in has been deleted."""
    try:
        Path.cwd()
    except OSError:
        return True
    return False


@contextmanager
def translated_errors(message_start: str) -> Iterator[None]:
    """Turn any error that another library raises in the block into an `InputError`.

    For the boundary where a library reads a foreign file, model or server: such libraries raise
    classes that no list holds. The block must hold the library's call alone, so that no defect of
    ours is taken for a bad input. The library's error stays as the cause (`--debug` shows it).

    Args:
        message_start: for example `cannot read weights.pt`.

    Raises:
        InputError: `message_start`, a colon, and the reason that the library gave.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{message_start}: not enough memory") from error
    except Exception as error:
        raise InputError(f"{message_start}: {reason(error)}") from error
