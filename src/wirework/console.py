"""Messages and progress on standard error; results go to standard output.

Messages go through `logging`, to the logger `wirework` and its children, named after the modules.
"""

import errno
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from wirework.errors import printable
from wirework.redaction import redact

if TYPE_CHECKING:
    from types import TracebackType

EVERY = 20.0
"""Seconds between progress lines, if there is no bar."""

_MEMORY = 60.0  # seconds over which the time left is smoothed, at most
_EARLY = 0.25  # the same as a share of the elapsed time: early estimates are soon replaced

_said_once: set[str] = set()

_LOGGER = "wirework"


def say(line: str) -> None:
    """Log one line for the user, without secrets, at level INFO."""
    _log(logging.INFO, line)


def warn(line: str) -> None:
    """Log one line of warning, without secrets."""
    _log(logging.WARNING, line)


def say_once(line: str) -> None:
    """Log one line, unless this process logged the same one before."""
    if line not in _said_once:
        _said_once.add(line)
        _log(logging.INFO, line)


def warn_once(line: str) -> None:
    """Log a line of warning, unless this process logged the same one before."""
    if f"warning: {line}" not in _said_once:
        _said_once.add(f"warning: {line}")
        _log(logging.WARNING, line)


def show_messages() -> None:
    """Write all messages of the library to standard error, as the command line does."""
    logger = logging.getLogger(_LOGGER)
    if not any(isinstance(handler, _ErrorStream) for handler in logger.handlers):
        logger.addHandler(_ErrorStream())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def write_line(line: str) -> None:
    """Write one line to standard error, without secrets; characters it cannot show are escaped."""
    _write(sys.stderr, line)


def _log(level: int, line: str) -> None:
    """Log a line to the logger of the calling module.

    If logging is not configured, neither for the library nor for the whole program, the line goes
    to standard error, as in a command.
    """
    if not (logging.getLogger(_LOGGER).handlers or logging.getLogger().handlers):
        show_messages()
    module = str(sys._getframe(2).f_globals.get("__name__", ""))
    name = module if module.startswith(f"{_LOGGER}.") else _LOGGER
    logging.getLogger(name).log(level, "%s", redact(line), stacklevel=3)


class _ErrorStream(logging.Handler):
    """Writes messages to the current `sys.stderr`; warnings begin with `warning: `."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        write_line(prefix + record.getMessage())


def _write(stream: TextIO, line: str) -> None:
    line = redact(line)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = "\n".join(printable(part) for part in line.split("\n"))  # names may be untrusted
    try:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if error.errno != errno.EIO:  # a closed terminal must not end the work
            raise


def rescaled(left: float, done: float, elapsed: float) -> float:
    """Return the seconds that the rest of some work takes if estimates stay as wrong as so far.

    Args:
        left: estimate for the rest, in any unit.
        done: estimate for what is done, in the same unit.
        elapsed: seconds that it took.
    """
    return left * elapsed / done


class TimeLeft:
    """Estimate of the remaining time, from the fraction of the work that is done.

    It extrapolates the mean rate since the start and is smoothed over a minute, or a quarter of a
    shorter time, so that it does not jump where the fraction does.

    Args:
        share: fraction that was done before.
        clock: returns the time in seconds.
    """

    def __init__(self, share: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._share = share
        self._began = self._looked = clock()
        self._left: float | None = None

    def skip(self, share: float) -> None:
        """Count a fraction of the work as done before, so that it does not enter the rate."""
        self._share += share

    def at(self, share: float) -> float | None:
        """Return the seconds left when this fraction is done; None: too early to say."""
        now = self._clock()
        elapsed, gained = now - self._began, share - self._share
        if gained <= 0 or elapsed < (5 if gained > 0.01 else 30):
            return None
        mean = rescaled(1 - share, gained, elapsed)
        since, self._looked = now - self._looked, now
        if self._left is None:
            self._left = mean
        elif since > 0:
            expected = max(self._left - since, 0.0)
            weight = 1 - math.exp(-since / min(_MEMORY, _EARLY * elapsed))
            self._left = expected + weight * (mean - expected)
        return self._left


def duration(seconds: float) -> str:
    """Return a duration in rounded units: `40 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(5 * round(seconds / 5), 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


CountFormat = Callable[[float, float], str]
"""Function from the work done and the total to text."""


def percent(done: float, total: float) -> str:
    """Return the progress as a percentage."""
    return f"{done / total:.0%}"


def counted(done: float, total: float) -> str:
    """Return the progress as a count: `3/20`."""
    return f"{int(done)}/{int(total)}"


def megabytes(done: float, total: float) -> str:
    """Return the progress in megabytes."""
    return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"


class Progress:
    """Progress of long work, shown on standard error inside a `with` block.

    On a terminal it is a live bar, elsewhere a line every few seconds, even without progress.
    Nested work has its own bar beside it.

    Args:
        title: name of the work, in a word or two.
        total: amount of work in any unit; None: unknown.
        shown: False: show nothing; None: only if the outer work is shown.
        done: amount that was done before.
        part: amount of the outer work that this is, in the unit of the outer work.
        count: formats the progress.
        every: seconds between lines; None: `EVERY`.
        alone: nested work gets no bar of its own; it is named in this one and moves it up to the
            end of the stage (`stage`).
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        title: str,
        total: float | None = 1.0,
        *,
        shown: bool | None = True,
        done: float = 0.0,
        part: float = 0.0,
        count: CountFormat = percent,
        every: float | None = None,
        alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._alone = alone
        self._stage_end = done
        self.title = title
        self.total = total
        self.note = ""
        self._done = done
        self._part = part
        self._within: Progress | None = None
        self._inner: Progress | None = None
        self._shown = shown
        self._count = count
        self._every = EVERY if every is None else every
        self._clock = clock
        self._updated = False
        self._began = clock()
        self._time_left = TimeLeft(self.share, clock)

    @property
    def done(self) -> float:
        """Amount that is done, including nested work."""
        inner = self._inner
        return self._done + (0.0 if inner is None else inner._part * inner.share)

    @property
    def share(self) -> float:
        """Fraction of the work that is done; 0 if the total is unknown."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    def update(self, done: float, note: str | None = None) -> None:
        """Set the amount that is done, and the note if it is new; the amount never decreases.

        The first call may include work that was done before: the rate is measured from there.
        """
        before = self.share
        self._done = max(self._done, done)
        self.note = self.note if note is None else note
        if not self._updated:
            self._updated = True
            self._time_left = TimeLeft(self.share, self._clock)
            if self._within is not None and self._within._inner is self:
                self._within._skip_share(self._part * (self.share - before))

    def advance(self, amount: float = 1.0) -> None:
        """Add to the amount that is done."""
        self._done += amount

    def skip(self, amount: float = 1.0) -> None:
        """Add an amount that was done before, so that it does not enter the rate."""
        self._done += amount
        if self.total:
            self._time_left.skip(amount / self.total)

    def stage(self, end: float, total: float | None = None) -> None:
        """Begin a stage, in which nested work moves the bar up to `end`.

        Work that the stage before left out is skipped.

        Args:
            end: amount that is done at the end of the stage.
            total: amount of work, if it has become known.
        """
        if total is not None and self.total is None:
            self.total = total
            self._time_left = TimeLeft(self.share, self._clock)
        if self._stage_end > self._done:
            self.skip(self._stage_end - self._done)
        self._stage_end = end

    def _skip_share(self, amount: float) -> None:
        """Leave an amount out of the rate, because it was done before."""
        if self.total:
            self._time_left.skip(amount / self.total)

    def _take_in(self, work: "Progress") -> None:
        """Count nested work, unless other nested work is counted already."""
        if self._inner is None:
            work._part = work._part or max(0.0, self._stage_end - self._done)
            self._inner = work
            self._skip_share(work._part * work.share)

    def count(self) -> str:
        """Return the progress as text; empty if the total is unknown."""
        return self._count(self.done, self.total) if self.total else ""

    def time(self) -> str:
        """Return the remaining time as text, or the time taken if it is too early to say."""
        left = self._time_left.at(self.share)
        if left is None:
            return f"{duration(self._clock() - self._began)} so far"
        return f"about {duration(left)} left"

    def line(self) -> str:
        """Return title, progress and time as one line."""
        about = ", ".join(part for part in (self.count(), self.about(), self.time()) if part)
        return f"{self.title}: {about}"

    def about(self) -> str:
        """Return the note, or title, progress and note of nested work without its own bar."""
        if not self._alone or self._inner is None:
            return self.note
        inner = self._inner
        return ", ".join(part for part in (f"{inner.title} {inner.count()}", inner.note) if part)

    def __enter__(self) -> Self:
        """Show the progress."""
        self._within = _display.innermost()
        if self._shown is None:
            self._shown = self._within is not None
        if self._shown and self._within is not None and self._within._alone:
            self._within._take_in(self)
        elif self._shown:
            _display.add(self, self._every)
            if self._within is not None:
                self._within._inner = self
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: BaseException | None,
        at: "TracebackType | None",
    ) -> None:
        """Remove the progress; nested work counts as done only if no error ended it."""
        if self._shown:
            if self._within is not None and self._within._inner is self:
                self._within._inner = None
                if error is None:
                    self._within.advance(self._part)
            _display.remove(self)


class _View(Protocol):
    """Shows all current work, outermost first."""

    def add(self, work: Progress) -> None: ...

    def remove(self, work: Progress) -> None: ...

    def close(self) -> None: ...


class _Display:
    """All current work, and the view of it while there is any."""

    def __init__(self) -> None:
        self._current_work: list[Progress] = []
        self._view: _View | None = None

    def innermost(self) -> Progress | None:
        return self._current_work[-1] if self._current_work else None

    def add(self, work: Progress, every: float) -> None:
        self._current_work.append(work)
        try:
            if self._view is None:
                self._view = _view(self._current_work, every)
            self._view.add(work)
        except BaseException:
            self.remove(work)
            raise

    def remove(self, work: Progress) -> None:
        view = self._view
        if work in self._current_work:
            self._current_work.remove(work)
        if view is None:
            return
        try:
            view.remove(work)
        finally:
            if not self._current_work:
                self._view = None
                view.close()


_display = _Display()


def _view(current_work: list[Progress], every: float) -> _View:
    """Return live bars for a terminal or a notebook, else lines."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        from wirework.live_bars import LiveBars

        bars = LiveBars.on(sys.stderr)
        if bars is not None:
            return bars
    return _Lines(current_work, every, sys.stderr)


class _Lines:
    """Writes a line about all current work every few seconds, from its own thread."""

    def __init__(self, current_work: list[Progress], every: float, stream: TextIO) -> None:
        self._current_work = current_work
        self._every = every
        self._stream = stream  # silenced libraries replace `sys.stderr`
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def add(self, work: Progress) -> None:
        """Do nothing: the list of current work is shared."""

    def remove(self, work: Progress) -> None:
        """Do nothing: the list of current work is shared."""

    def close(self) -> None:
        self._ended.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        # A closed stream is reported by the work itself.
        with suppress(OSError, ValueError):
            while not self._ended.wait(self._every):
                _write(self._stream, "; ".join(work.line() for work in [*self._current_work]))
