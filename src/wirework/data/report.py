"""Progress of data preparation on standard error: a bar, and a line while it waits."""

import contextlib
from collections.abc import Callable, Iterator

from wirework.console import Progress, megabytes, say

Advance = Callable[[int], None]


@contextlib.contextmanager
def report(what: str, total: int | None, show: bool, done: int = 0) -> Iterator[Advance]:
    """Show a bar while the block runs, and yield what moves it on.

    Args:
        what: the words beside the bar.
        total: bytes of text to come; None: not known.
        show: False shows nothing.
        done: bytes done before.
    """
    with Progress(what, total, shown=show, done=done, count=megabytes) as bar:
        yield bar.advance


def say_waiting(what: str, show: bool) -> None:
    """Say that another process does the work which is waited for."""
    if show:
        say(f"waiting for another process that prepares {what}")
