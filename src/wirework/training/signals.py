"""Stopping on SIGINT and SIGTERM at moments where nothing is half-done.

A signal only leaves a mark, which the loop looks at between steps, evaluation batches and files.
Where nothing is lost by leaving at once (data preparation), it raises. Further signals change
nothing: the way out is already being taken. But an exception can be lost: Python drops those of
destructors, and C code clears errors that it takes for a missing attribute (one signal in some tens
was lost so in a search for a circuit). One that is gone before the block was left is raised again.
"""

import _thread
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

_SOON = 0.05
"""Seconds between looks at whether a signal's exception is lost."""

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
        self._raised: Callable[[], Interrupted | None] = _nothing

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
        if self._at_once is None or self._raised() is not None:
            return
        error = Interrupted(self.number, self._at_once)
        self._raised = weakref.ref(error)
        # No `threading.Thread`: it takes locks that whoever was interrupted may hold.
        _thread.start_new_thread(self._look_after, (self.number,))
        try:
            raise error
        finally:
            del error  # or this frame would keep it alive

    def _look_after(self, number: int) -> None:
        """Let a signal come again if its exception is gone and the block has not been left."""
        while self._at_once is not None and self._raised() is not None:
            time.sleep(_SOON)
        if self._at_once is not None:
            _thread.interrupt_main(signal.Signals(number))


def _nothing() -> None:
    """Stand for a reference to an exception that was not raised yet."""


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM for the block; outside the main thread there is nothing to catch."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_unless_ours, hook)
    before = {number: signal.signal(number, stop.receive) for number in _SIGNALS}
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless_ours(otherwise: _Hook, what: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a signal's exception that Python drops: it will come again."""
    if not isinstance(what.exc_value, Interrupted):
        otherwise(what)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
