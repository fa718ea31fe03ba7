"""Progress of data preparation on standard error: a bar, and a message while it waits."""

import contextlib
from collections.abc import Callable, Iterator

from wirework.console import Progress, megabytes, say

Advance = Callable[[int], None]


@contextlib.contextmanager
def report(label: str, total: int | None, show: bool, done: int = 0) -> Iterator[Advance]:
    """Show a bar during the block, and yield the function that advances it.

    Args:
        label: the words beside the bar.
        total: bytes of text in total; None if unknown.
        show: False shows nothing.
        done: bytes that were done before.
    """
    with Progress(label, total, shown=show, done=done, count=megabytes) as bar:
        yield bar.advance


def say_waiting(label: str, show: bool) -> None:
    """Print that this process waits for another one that does the same work."""
    if show:
        say(f"waiting for another process that prepares {label}")
