"""What a person sees while training runs: lines and a live bar, all on standard error."""

from types import TracebackType
from typing import Self

from wirework.console import Progress, counted, say


class Bar:
    """Progress of a run: loss, nonzero fraction, tokens/s and time left.

    Args:
        steps: length of the training.
        start: step it starts from.
        shown: False for silence.
    """

    def __init__(self, steps: int, start: int, shown: bool = True) -> None:
        self.steps = steps
        self._shown = shown
        self._progress = Progress("training", steps, done=start, shown=shown, count=counted)

    def __enter__(self) -> Self:
        """Begin to show it."""
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.__exit__(kind, error, at)

    def update(self, step: int, loss: float, l0_fraction: float, tokens_per_s: float) -> None:
        """Show the state after `step` steps; loss in nats."""
        note = f"loss {loss:.3f}  nonzero {l0_fraction:.2%}  {tokens_per_s:,.0f} tokens/s"
        self._progress.update(step, note)

    def evaluated(self, step: int, val_loss: float) -> None:
        """Show a held-out loss in nats, as a line that stays."""
        if self._shown:
            say(f"step {step}/{self.steps}  held-out loss {val_loss:.4f}")
