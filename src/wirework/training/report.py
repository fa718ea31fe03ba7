"""What a person sees while training runs: lines and a live bar, all on standard error."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from wirework.console import say

_SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """Progress of a run: loss, nonzero fraction, tokens/s and time left.

    A live bar on a terminal; elsewhere a plain line now and then.

    Args:
        steps: length of the training.
        start: step it starts from.
        shown: False for silence.
    """

    def __init__(self, steps: int, start: int, shown: bool = True) -> None:
        self.steps = steps
        self.start = start
        self._shown = shown
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        """Start the live bar if standard error is a terminal."""
        self._began = self._spoke = time.monotonic()
        console = Console(stderr=True)
        if self._shown and console.is_terminal:
            self._live = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[line]}"),
                TimeRemainingColumn(),
                console=console,
                refresh_per_second=4,
            )
            self._task = self._live.add_task("", total=self.steps, completed=self.start, line="")
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def update(self, step: int, loss: float, l0_fraction: float, tokens_per_s: float) -> None:
        """Show the state after `step` steps; loss in nats."""
        line = f"loss {loss:.3f}  nonzero {l0_fraction:.2%}  {tokens_per_s:,.0f} tokens/s"
        if self._live is not None:
            self._live.update(self._task, completed=step, line=line)
        elif self._shown and time.monotonic() - self._spoke > _SECONDS_BETWEEN_LINES:
            self._spoke = time.monotonic()
            say(f"step {step}/{self.steps}  {line}  {self._left(step)} left")

    def evaluated(self, step: int, val_loss: float) -> None:
        """Show a held-out loss in nats, as a line that stays."""
        line = f"step {step}/{self.steps}  held-out loss {val_loss:.4f}"
        if self._live is not None:
            self._live.console.print(line, highlight=False)
        elif self._shown:
            say(line)

    def _left(self, step: int) -> str:
        rate = (time.monotonic() - self._began) / max(step - self.start, 1)
        minutes, seconds = divmod(round(rate * (self.steps - step)), 60)
        return f"{minutes}:{seconds:02d}"
