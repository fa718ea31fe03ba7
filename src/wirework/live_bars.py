"""Live bars on a terminal or in a notebook, drawn by rich."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

if TYPE_CHECKING:
    from wirework.console import Progress


class LiveBars:
    """A bar for each piece of current work.

    Args:
        console: console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self._tasks: dict[Progress, TaskID] = {}
        self._bars = _Bars(
            _Words(lambda work: work.title),
            BarColumn(bar_width=30),
            _Words(lambda work: work.count()),
            _Words(lambda work: work.about(), shrinks=True),
            _Words(lambda work: work.time()),
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # standard output is for results
        )
        self._bars.start()

    @classmethod
    def on(cls, stream: TextIO) -> Self | None:
        """Return bars on a stream; None if it cannot show any."""
        console = Console(file=stream)
        shows = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
        return cls(console) if shows else None

    def add(self, work: "Progress") -> None:
        """Show a bar."""
        self._tasks[work] = self._bars.add_task("", total=work.total, work=work)

    def remove(self, work: "Progress") -> None:
        """Remove its bar."""
        if work in self._tasks:
            self._bars.remove_task(self._tasks.pop(work))

    def close(self) -> None:
        """Restore the terminal."""
        with suppress(OSError):  # the terminal is closed
            self._bars.stop()


class _Bars(RichProgress):
    """rich's bars, which read the progress when they are drawn."""

    def get_renderables(self):  # type: ignore[no-untyped-def]
        for task in self.tasks:
            work = task.fields["work"]
            task.completed, task.total = work.done, work.total
        yield from super().get_renderables()


class _Words(ProgressColumn):
    """A column of text without markup.

    Args:
        words: function from the work to its text.
        shrinks: cut the text if the line is too short; other columns are shown in full.
    """

    def __init__(self, words: "Callable[[Progress], str]", *, shrinks: bool = False) -> None:
        super().__init__(Column(no_wrap=not shrinks))
        self._words = words

    def render(self, task: Task) -> Text:
        """Return the text for a piece of work."""
        return Text(self._words(task.fields["work"]), no_wrap=True, overflow="ellipsis")
