"""Map a function over items in several processes: results in order, no orphaned process.

Processes are started by `multiprocessing`. docs/architecture.md says which guarantees
`concurrent.futures` and joblib's loky do not give.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import Queue
from threading import Thread
from types import ModuleType
from typing import Any, TypeVar

from wirework.errors import InputError, number_of
from wirework.signals import kept_from_children

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SAVING_SECONDS = 10.0
"""Seconds that processes have to save their work before they are killed."""
_EXIT_SECONDS = 5.0
"""Seconds that idle processes have to end by themselves."""


def parallel_map(
    work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int
) -> Generator[_Result]:
    """Yield `work(item)` for each item, in order, computed in `jobs` processes.

    The processes share the torch threads of this one evenly. When the generator is closed or this
    process is interrupted, they get SIGTERM, on which a training run saves, and are killed after
    ten seconds.

    Args:
        work: a function that can be pickled, as can items and results. Its exceptions are raised in
            this process.
        items: the arguments, one for each call.
        jobs: number of processes, 1 or more.

    Raises:
        InputError: `jobs` is below 1, or a process died.
    """
    import torch  # here, since `map_in_processes` does not need it

    threads = max(1, torch.get_num_threads() // max(1, jobs))
    advice = "try fewer jobs; the same call goes on from what was saved"
    yield from map_in_processes(work, items, jobs, advice, partial(_set_threads, threads))


def map_in_processes(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    jobs: int,
    advice: str,
    initializer: Callable[[], object],
    *,
    ahead: int | None = None,
    import_script: bool = True,
    saving_seconds: float = _SAVING_SECONDS,
) -> Generator[_Result, None, None]:
    """Yield `work(item)` for each item, in order, computed in `jobs` processes.

    All processes end with the generator, and at once if this process dies for any reason.

    Args:
        work: as for `parallel_map`.
        items: the arguments; read only as processes need them.
        jobs: number of processes, 1 or more.
        advice: end of the message when a process died.
        initializer: called first in each process.
        ahead: maximum number of items read before their results are yielded; None: no limit.
        import_script: import the user's script, which may define `work`, in each process. The
            script then needs `if __name__ == "__main__":`.
        saving_seconds: time between SIGTERM and SIGKILL when the generator is closed early.

    Raises:
        InputError: `jobs` is below 1, or a process died.
    """
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, got {jobs}")
    workers: list[_Worker] = []
    with ExitStack() as stack:
        try:
            for _ in range(jobs):
                workers.append(stack.enter_context(_worker(import_script)))
            for worker in workers:
                worker.connection.send((work, initializer))
            yield from _in_order([worker.connection for worker in workers], items, ahead)
            for worker in workers:  # a process that is killed leaves its semaphores
                worker.connection.send(())
            _wait_for(workers, _EXIT_SECONDS)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise InputError(
                f"one of {number_of(jobs, 'process')} died, perhaps for want of memory: {advice}"
            ) from None
        finally:
            _terminate(workers, saving_seconds)


@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    """Sends items to the process and receives results."""


@contextmanager
def _worker(import_script: bool) -> Iterator[_Worker]:
    """Start a process, and kill it at the end of the block."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    connection, other = context.Pipe()
    process = context.Process(target=_serve, args=(other,))
    with connection:
        try:
            with other, _safe_imports(import_script):
                resource_tracker.ensure_running()  # its first start unblocks blocked signals
                with kept_from_children():
                    process.start()
            yield _Worker(process, connection)
        finally:
            if process.pid is not None:
                process.kill()
                process.join()


@contextmanager
def _safe_imports(import_script: bool) -> Iterator[None]:
    """Start processes that import nothing from the working directory.

    They have the module path of this process, so they import the same modules. They import the
    user's script only on request.
    """
    before, script = os.environ.get("PYTHONSAFEPATH"), sys.modules["__main__"]
    os.environ["PYTHONSAFEPATH"] = "1"
    if not import_script:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _in_order(
    connections: list[Connection], items: Iterable[Any], ahead: int | None
) -> Iterator[Any]:
    """Distribute the items to the processes, and yield the results in order."""
    most_queued = 1 if ahead is None else max(1, ahead // len(connections))
    queued: dict[Connection, deque[int]] = {connection: deque() for connection in connections}
    results: dict[int, tuple[Any, Exception | None]] = {}
    numbered = enumerate(items)
    n_read, n_yielded, at_end = 0, 0, False
    while not at_end or n_yielded < n_read:
        connection = min(queued, key=lambda each: len(queued[each]))
        may_read = ahead is None or n_read - n_yielded < ahead
        if not at_end and may_read and len(queued[connection]) < most_queued:
            for number, item in numbered:
                connection.send((item,))
                queued[connection].append(number)
                n_read += 1
                break
            else:
                at_end = True
            continue
        busy = [connection for connection in queued if queued[connection]]
        for ready in wait(busy, 0 if n_yielded in results else None):
            assert isinstance(ready, Connection)
            results[queued[ready].popleft()] = ready.recv()
        if n_yielded in results:
            result, error = results.pop(n_yielded)
            if error is not None:
                raise error
            n_yielded += 1
            yield result


def _terminate(workers: list[_Worker], seconds: float) -> None:
    """Send SIGTERM to the processes that are alive, and give them time to save."""
    alive = [worker for worker in workers if worker.process.is_alive()]
    for worker in alive:
        worker.process.terminate()
    _wait_for(alive, seconds)


def _wait_for(workers: list[_Worker], seconds: float) -> None:
    """Wait until all processes have ended, for at most this time in total."""
    deadline = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _serve(connection: Connection) -> None:
    """In a new process, compute each item received until an empty tuple arrives."""
    signal.signal(signal.SIGTERM, _exit)
    work, initializer = connection.recv()
    initializer()
    received: Queue[Any] = Queue()
    Thread(target=_receive, args=(connection, received), daemon=True).start()
    while item := received.get():
        try:
            connection.send((work(*item), None))
        except Exception as error:
            error.add_note(traceback.format_exc())
            connection.send((None, error))
        except KeyboardInterrupt:  # a training run that got SIGTERM and has saved
            return


def _exit(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the exit
    raise SystemExit


def _receive(connection: Connection, received: "Queue[Any]") -> None:
    """Queue received items; end the process when the parent closes the connection or dies."""
    while True:
        try:
            received.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)
