"""What a person sees of data preparation, on standard error: a bar, and why nothing moves."""

import contextlib
import sys
from collections.abc import Callable, Iterator

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
    # Here, not above: whoever only loads a tokeniser need not wait for rich.
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda n_bytes: bar.advance(task, n_bytes)
        # Totals are sizes of files, and part of these may not be text of the corpus.
        bar.update(task, total=bar.tasks[0].completed)


def say_waiting(what: str, show: bool) -> None:
    """Say that another process does the work which is waited for."""
    if show:
        print(f"waiting for another process that prepares {what}", file=sys.stderr, flush=True)
