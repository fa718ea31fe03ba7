"""The `wirework` command: its exit codes and one-line errors.

0: done. 1: a defect of wirework. 2: an input cannot be used. 128 + N: ended by signal N.
This module imports almost nothing, so that signals are handled from the start.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from wirework.signals import Stop

_PIPE = 128 + 13
"""Exit code that a shell gives a program whose output pipe was closed (SIGPIPE)."""
_DEFECT = (
    "this is a defect of wirework, not of what you gave it: please report it with the lines above"
)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback until `stopping` starts
    from wirework.signals import end, stopping

    _show_anything()
    with stopping(while_loading=partial(end, message="stopped")) as stop:
        code = _run(stop)
    sys.exit(code)


def _show_anything() -> None:
    """Escape characters that the encoding of a stream lacks, and replace a missing stream."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    elif type(sys.stdout) is io.TextIOWrapper:  # not a replacement by a test or notebook
        sys.stdout = _Output(
            sys.stdout.buffer,
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering,
            write_through=sys.stdout.write_through,
        )


def _run(stop: "Stop") -> int:
    """Run the command line and return the exit code; a signal ends the process."""
    from wirework.errors import InputError
    from wirework.redaction import print_traceback
    from wirework.signals import end

    sys.excepthook = print_traceback
    try:
        with stop.at_once("stopped"):
            from wirework.console import show_messages
            from wirework.menu import launch

            show_messages()
            launch()
            sys.stdout.flush()  # here, where a failure can still be reported
    except InputError as error:
        if stop.number is not None:  # the called code turned the signal into another error
            end(stop.number, f"stopped: {error}")
        return _refused(str(error), error)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        _discard_output()
        return _PIPE
    except SystemExit as error:  # rich exits if the reader of a help text is gone
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _discard_output()
        return _PIPE
    except OSError as error:
        return _refused(f"{error.filename or 'system'}: {error.strerror or error}", error)
    except MemoryError as error:
        return _refused("not enough memory", error)
    except KeyboardInterrupt as error:
        end(getattr(error, "number", 2), str(error) or "stopped")
    except Exception:
        if stop.number is not None:  # an import or the verb turned the signal into an error
            end(stop.number, "stopped")
        sys.excepthook(*sys.exc_info())
        _say(_DEFECT)
        return 1
    return 0


class _Output(io.TextIOWrapper):
    """Standard output whose write errors name it; the error of the system names no file."""

    def write(self, text: str) -> int:
        with _reporting_write_errors():
            return super().write(text)

    def flush(self) -> None:
        with _reporting_write_errors():
            super().flush()


@contextmanager
def _reporting_write_errors() -> Iterator[None]:
    """Turn a write error of the system into one line, except that of a closed pipe.

    Raises:
        InputError: standard output cannot be written, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        from wirework.errors import InputError

        _discard_output()
        raise InputError(f"cannot write to standard output: {error.strerror or error}") from error


def _discard_output() -> None:
    """Discard unwritten output; at exit Python would try again to write it and report an error."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _refused(message: str, error: BaseException) -> int:
    """Print the message of an `InputError`; with `--debug`, print its traceback first."""
    if "--debug" in sys.argv:
        sys.excepthook(type(error), error, error.__traceback__)
    _say(message)
    return 2


def _say(message: str) -> None:
    from wirework.console import write_line

    with suppress(OSError):  # standard error is closed
        write_line(f"wirework: {' '.join(message.split())}")
