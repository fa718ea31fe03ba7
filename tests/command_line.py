"""The `wirework` command for tests: in this process, which is quick, or in one of its own.

| what is tested | how the command is run |
|---|---|
| what it prints, writes and returns | `run_here`, in this process |
| signals, a kill, locks between processes | the fixture `start`, in a process forked from another |
| start of the interpreter, encodings, standard streams | `WIREWORK`, as users start it |
"""

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from wirework import cli, console, menu, signals

WIREWORK = Path(sys.executable).with_name("wirework")
"""The installed command, to be started as a process."""

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)


def run_here(
    *arguments: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process and return what `subprocess.run` would return of another.

    Args:
        arguments: the words after `wirework`.
        cwd: the working folder of the command.
        env: variables to set beside those of this process.
        encoding: of its standard streams.

    Returns:
        The exit code and what was printed to `sys.stdout` and `sys.stderr`.
    """
    words = ["wirework", *map(str, arguments)]
    out, err = io.BytesIO(), io.BytesIO()
    with _process_state() as patch:
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding))
        patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding))
        first = sys.stdout  # closes `out` once nobody holds it
        code = _exit_code()
        for stream in (first, sys.stdout, sys.stderr):
            stream.flush()
        printed, said = (stream.getvalue().decode(encoding) for stream in (out, err))
    return subprocess.CompletedProcess(words, code, printed, said)


class Started:
    """A running command, with the methods of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        words: list[str],
        cwd: Path | None,
        env: Mapping[str, str] | None,
        ignored: Collection[int],
        stdout: int | None,
        ask: "Server",
    ) -> None:
        self._ask = ask
        self.returncode: int | None = None
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        job = {
            "words": words, "cwd": str(cwd or Path.cwd()), "ignored": [*map(int, ignored)],
            "env": {**os.environ, **(env or {})},
        }  # fmt: skip
        with Path(os.devnull).open() as nothing:
            out, err = (stream.fileno() for stream in self._streams)
            self.pid = ask(job, [nothing.fileno(), out if stdout is None else stdout, err])

    def poll(self) -> int | None:
        """Return the exit code, minus the signal that killed it, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code once there is one."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < until, "the command goes on"
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end and return what it printed and said."""
        self.wait(timeout)
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Kill it if it still runs, and forget what it printed."""
        self.send_signal(signal.SIGKILL)
        self.wait(10)
        for stream in self._streams:
            stream.close()


class Server:
    """The process that commands are forked from (`command_server.py`)."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        script = Path(__file__).with_name("command_server.py")
        with theirs:
            self._process = subprocess.Popen([sys.executable, str(script)], stdin=theirs.fileno())
        self._commands: list[Started] = []

    def __call__(self, job: dict[str, Any], streams: Sequence[int] = ()) -> Any:
        """Send a request and return the answer."""
        socket.send_fds(self._socket, [json.dumps(job).encode()], streams)
        return json.loads(self._socket.recv(1 << 10))

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        ignored: Collection[int] = (),
        stdout: int | None = None,
    ) -> Started:
        """Start the command in a process of its own.

        Args:
            arguments: the words after `wirework`.
            cwd: its working folder.
            env: variables to set beside those of this process.
            ignored: signals that it ignores from its start, as `nohup` has it.
            stdout: file descriptor of its standard output; None: kept for `communicate`.
        """
        words = ["wirework", *map(str, arguments)]
        self._commands.append(Started(words, cwd, env, ignored, stdout, self))
        return self._commands[-1]

    def end_commands(self) -> None:
        """Kill what a test left running."""
        while self._commands:
            self._commands.pop().close()

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)


class _EndedBySignal(BaseException):
    """What stands here for the end of the process in `signals.end`."""

    def __init__(self, number: int) -> None:
        self.number = number


def _end(number: int, message: str) -> NoReturn:
    print(f"wirework: {message}", file=sys.stderr)
    raise _EndedBySignal(number)


def _exit_code() -> int:
    try:
        cli.main()
    except SystemExit as ended:
        return int(str(ended.code))
    except _EndedBySignal as ended:
        return 128 + ended.number
    raise AssertionError("the command did not end the process")


@contextlib.contextmanager
def _process_state() -> Iterator[pytest.MonkeyPatch]:
    """Give the block the state of a new process, and put back at its end what was before.

    Settings of the command line, lines that are said once, environment, working folder, signal
    handlers, hooks, filters of warnings, modules loaded from files, torch's threads and the
    generators of random numbers. Imported modules and what `functools.cache` holds stay.
    """
    handlers = {number: signal.getsignal(number) for number in _CAUGHT}
    environment, modules, path = dict(os.environ), set(sys.modules), [*sys.path]
    threads, generators = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        patch.setattr(menu.app, "config", menu.app.config)
        patch.setattr(console, "_said_once", set())
        patch.setattr(signals, "end", _end)
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.delenv("PYTEST_VERSION", raising=False)  # cyclopts behaves otherwise with it
        try:
            yield patch
        finally:
            os.environ.clear()
            os.environ.update(environment)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if name.startswith("wirework_user_"):  # files of a user; see `user_code.py`
                    del sys.modules[name]
            torch.set_num_threads(threads)
            random.setstate(generators[0])
            np.random.set_state(generators[1])
