"""End on signals only at points where no work is half-done.

Five signals ask a process to end: SIGINT (Ctrl-C), SIGTERM, SIGHUP (the terminal closed), SIGUSR1
and SIGXCPU (a job scheduler, shortly before it kills). The handler only sets a flag, which loops
check between steps, evaluation batches and files. Where stopping at once loses nothing (data
preparation), it raises `Interrupted`. Further signals have no effect. An exception can be lost:
Python drops those of destructors, and C code clears errors that it mistakes for a missing attribute
(a few percent of the signals during a search for a circuit). It is then raised again.
"""

import _thread
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

TYPE_CHECKING = False  # importing `typing` takes longer than all else here, as in `cli.py`
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)

_CHECK_SECONDS = 0.05
"""Seconds between two checks whether a signal's exception was lost."""

_Hook = Callable[["sys.UnraisableHookArgs"], object]


class Interrupted(KeyboardInterrupt):
    """Work has stopped on a signal, and its results so far are saved. The message is one line.

    A `KeyboardInterrupt`, so that notebooks and plain scripts treat it as one.

    Args:
        number: number of the signal.
        message: what was saved and how to continue.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Exit code of a process ended by the signal: 128 + its number."""
        return 128 + self.number


class Stop:
    """Whether a signal has arrived, and which one was first.

    Args:
        while_loading: called with the signal's number, instead of an exception, while a module is
            being imported. An exception there breaks C modules: they raise other errors or stay
            half-loaded.
    """

    def __init__(self, while_loading: Callable[[int], object] | None = None) -> None:
        self.number: int | None = None
        self._while_loading = while_loading
        self._at_once: str | None = None
        self._raised: Callable[[], Interrupted | None] = _nothing

    @property
    def requested(self) -> bool:
        """True once a signal has arrived."""
        return self.number is not None

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Within the block, a signal raises `Interrupted` with this message at once."""
        self._at_once = message
        try:
            self.leave_if_requested(message)
            yield
            self.leave_if_requested(message)
        finally:
            self._at_once = None

    def leave_if_requested(self, message: str) -> None:
        """Raise `Interrupted` with this message if a signal has arrived."""
        if self.number is not None:
            raise Interrupted(self.number, message)

    def receive(self, number: int, frame: "FrameType | None") -> None:
        """Handle a signal; `stopping` installs this handler."""
        self.number = self.number or number
        if self._at_once is None or self._raised() is not None:
            return
        if self._while_loading is not None and _loading(frame):
            self._while_loading(self.number)
        error = Interrupted(self.number, self._at_once)
        self._raised = weakref.ref(error)
        # No `threading.Thread`: it needs locks that the interrupted code may hold.
        _thread.start_new_thread(self._raise_again_if_lost, (self.number,))
        try:
            raise error
        finally:
            del error  # otherwise this frame keeps it alive

    def take_over(self, error: Interrupted) -> None:
        """Take over a signal whose exception leaves an inner block: it is not lost."""
        self.number = self.number or error.number
        self._raised = weakref.ref(error)

    def _raise_again_if_lost(self, number: int) -> None:
        """Send the signal again if its exception is gone and the block has not been left."""
        while self._at_once is not None and self._raised() is not None:
            time.sleep(_CHECK_SECONDS)
        if self._at_once is not None:
            _thread.interrupt_main(signal.Signals(number))


def _nothing() -> None:
    """Return None: stands for a weak reference before an exception is raised."""


def _loading(frame: "FrameType | None") -> bool:
    """Return whether a frame, or one of its callers, is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def stopping(while_loading: Callable[[int], object] | None = None) -> Iterator[Stop]:
    """Handle the signals during the block; outside the main thread, none can be handled.

    Blocks may be nested: the innermost one handles the signals.

    Args:
        while_loading: as for `Stop`.
    """
    stop = Stop(while_loading)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_report_others, hook)
    before = {number: signal.signal(number, stop.receive) for number in _to_catch()}
    try:
        yield stop
    except Interrupted as error:
        outer = getattr(before.get(signal.SIGINT), "__self__", None)
        if isinstance(outer, Stop):
            outer.take_over(error)
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_catch() -> list[signal.Signals]:
    """Return the signals that are not ignored on purpose, as `nohup` does with SIGHUP.

    SIGINT is always handled: shells make background jobs ignore it, but a SIGINT sent with `kill`
    is intended.
    """
    ignored = (signal.SIG_IGN, None)  # None: a handler that was not set by Python
    return [
        number
        for number in _SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) not in ignored
    ]


def _report_others(hook: _Hook, dropped: "sys.UnraisableHookArgs") -> None:
    """Report an exception that Python dropped, unless it is a signal's, which is raised again."""
    if not isinstance(dropped.exc_value, Interrupted):
        hook(dropped)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Start child processes that only SIGTERM reaches; this process handles the other signals.

    A terminal and a job scheduler send signals to all processes of a job at once.
    """
    kept = set(_SIGNALS) - {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        # May raise for a signal that arrived just before: the signals are then blocked already.
        signal.pthread_sigmask(signal.SIG_BLOCK, kept)
        yield
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        finally:
            # `pthread_sigmask` is written in Python: a signal that another thread received raises
            # as it is called, before it does anything. A second call is not disturbed.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end(number: int, message: str) -> "NoReturn":
    """End the process at once, as a signal would, with one line on standard error.

    Not by an exception: Python would have to shut down while threads are running, and further
    signals would print a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            stream.flush()
    with suppress(OSError):
        os.write(2, f"wirework: {message}\n".encode("ascii", "backslashreplace"))
    os._exit(128 + number)
