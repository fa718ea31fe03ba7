"""Stopping on SIGINT and SIGTERM at moments where nothing is half-done.

A signal only leaves a mark, which the loop looks at between steps, evaluation batches and files.
Where nothing is lost by leaving at once (data preparation), it raises. Further signals change
nothing for some seconds: the way out is being taken. An exception that Python drops, as it does in
a destructor or a callback of the garbage collector, is raised again at once.
"""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SOON = 0.05
"""Seconds until a signal whose exception was dropped comes again."""
_PATIENCE = 5.0
"""Seconds in which no further signal is heard: a later one finds either nothing or an exception
that some library has swallowed."""

_Hook = Callable[["sys.UnraisableHookArgs"], object]


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
        self._deaf_until = 0.0

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.number is not None

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Within the block, a signal raises `Interrupted` with this message right away."""
        self._at_once = message
        try:
            self.leave_if_requested(message)
            yield
            self.leave_if_requested(message)
        finally:
            self._at_once = None

    def leave_if_requested(self, message: str) -> None:
        """Raise `Interrupted` with this message if a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number, message)

    def receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Take a signal; the handler that `stopping` installs."""
        self.number = self.number or number
        if self._at_once is not None and time.monotonic() > self._deaf_until:
            self._deaf_until = time.monotonic() + _PATIENCE
            raise Interrupted(self.number, self._at_once)

    def again(self, what: "sys.UnraisableHookArgs", otherwise: _Hook) -> None:
        """Let the signal come again if it is its exception that Python drops.

        Args:
            what: an exception that nobody can catch.
            otherwise: what takes others.
        """
        if _from_signal(what.exc_value):
            self._deaf_until = 0.0
            # Raised from here it would be dropped again; a `threading.Thread` would take locks that
            # whoever was interrupted may hold.
            _thread.start_new_thread(self._remind, ())
        else:
            otherwise(what)

    def _remind(self) -> None:
        time.sleep(_SOON)
        if self._at_once is not None and self.number is not None:
            _thread.interrupt_main(signal.Signals(self.number))


def _from_signal(error: BaseException | None) -> bool:
    """Whether an exception is an `Interrupted` or came up while one was on its way."""
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
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: stop.again(what, hook)
    before = {number: signal.signal(number, stop.receive) for number in _SIGNALS}
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
