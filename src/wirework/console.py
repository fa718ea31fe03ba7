"""Lines for the person at the terminal, on standard error; results go to standard output."""

import sys

from wirework.redaction import redact

_said_once: set[str] = set()


def say(line: str) -> None:
    """Write one line to standard error, without secrets; what it cannot show is escaped."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    shown = redact(line).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Write one line of warning to standard error."""
    say(f"warning: {line}")


def warn_once(line: str) -> None:
    """Write a line of warning to standard error, unless this process wrote the same one before."""
    if line not in _said_once:
        _said_once.add(line)
        warn(line)
