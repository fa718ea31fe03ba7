"""Runs the `wirework` command in processes forked from this one, which has its modules loaded.

A process of its own in a tenth of the time that an interpreter takes to start. Reads one JSON
object a message from the socket on standard input: `start` (`words`, `cwd`, `env`, `ignored`:
signals to ignore; with the three standard streams) is answered with the process id, `poll` (an id)
with the exit code, or null while it runs. Signals are those of the started process alone.
"""

import json
import os
import signal
import socket
import sys
from types import ModuleType
from typing import Any, TextIO

import optuna  # noqa: F401 (loaded for the processes that are forked)
import torch
import torch._dynamo  # the optimizer loads it; a second saved in each child

from wirework import cli, commands, config, menu, training  # noqa: F401


def start(job: dict[str, Any], streams: list[int]) -> int | None:
    """Fork; return the id of the new process, or None in that process."""
    child = os.fork()
    if child:
        for stream in streams:
            os.close(stream)
        return child
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout, sys.stderr = _opened(1), _opened(2)
    # Final in typeshed, but a forked process has streams of its own.
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc,assignment]
    for number in job["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    sys.modules["__main__"] = ModuleType("__main__")  # or workers would import this file as theirs
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = job["words"]
    return None


def _opened(number: int) -> TextIO:
    """Return a standard stream on the file that is there now."""
    return open(number, "w", closefd=False)


def serve(connection: socket.socket) -> None:
    """Answer requests until the other end closes; returns in each started process too."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            sys.exit()
        job = json.loads(message)
        if "poll" in job:
            pid, status = os.waitpid(job["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = start(job, list(streams))
            if answer is None:
                connection.close()
                return
        connection.send(json.dumps(answer).encode())


def main() -> None:
    torch.set_num_threads(1)
    serve(socket.socket(fileno=os.dup(0)))
    cli.main()


if __name__ == "__main__":
    main()
