"""Stopping on SIGINT and SIGTERM at moments where nothing is half-done.

A signal only leaves a mark, which the loop looks at between steps, evaluation batches and files.
Where nothing is lost by leaving at once (data preparation), it raises. Further signals change
nothing while the way out is being taken; they raise anew where the first exception was lost, as
Python does with one that comes up in a destructor or in a callback of the garbage collector.
"""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and has; what it had is saved. The message is one line.

    A `KeyboardInterrupt`, so that notebooks and plain scripts treat it as one.

    Args:
        number: of the signal.
        message: what was saved and how to go on.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 128 + its number."""
        return 128 + self.number


class Stop:
    """Whether a signal has come, and which was first."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once: str | None = None

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.number is not None

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Within the block, a signal raises `Interrupted` with this message right away."""
        self._at_once = message
        left = threading.Event()
        # Made here, not by the handler, which may have interrupted whoever holds a lock.
        threading.Thread(target=self._remind, args=(left,), daemon=True).start()
        try:
            self.leave_if_requested(message)
            yield
            self.leave_if_requested(message)
        finally:
            self._at_once = None
            left.set()

    def leave_if_requested(self, message: str) -> None:
        """Raise `Interrupted` with this message if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number, message)

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal; the handler that `stopping` installs."""
        self.number = self.number or number
        if self._at_once is not None and not _leaving():
            raise Interrupted(self.number, self._at_once)

    def _remind(self, left: threading.Event) -> None:
        """Let a signal come again until the block has been left."""
        while not left.wait(_SECONDS):
            if self.number is not None:
                _thread.interrupt_main(signal.Signals(self.number))


def _leaving() -> bool:
    """Whether what runs now is the clean-up after an `Interrupted`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM for the block; outside the main thread there is nothing to catch."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SECONDS = 1.0
"""Between looks at whether a signal's exception was lost."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
