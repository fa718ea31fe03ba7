"""Progress of training on standard error: lines and a live bar."""

from types import TracebackType
from typing import Self

from wirework.console import Progress, counted, say


class TrainingProgress:
    """Progress of a run: loss, nonzero fraction, tokens/s and time left.

    Args:
        steps: number of training steps.
        start: step from which the run starts.
        shown: False to show nothing.
    """

    def __init__(self, steps: int, start: int, shown: bool = True) -> None:
        self.steps = steps
        self._shown = shown
        self._progress = Progress("training", steps, done=start, shown=shown, count=counted)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the bar and restore the terminal."""
        self._progress.__exit__(kind, error, traceback)

    def update(self, step: int, loss: float, l0_fraction: float, tokens_per_s: float) -> None:
        """Show the state after `step` steps; loss in nats."""
        note = f"loss {loss:.3f}  nonzero {l0_fraction:.2%}  {tokens_per_s:,.0f} tokens/s"
        self._progress.update(step, note)

    def evaluated(self, step: int, val_loss: float) -> None:
        """Print a line with a held-out loss in nats."""
        if self._shown:
            say(f"step {step}/{self.steps}  held-out loss {val_loss:.4f}")
