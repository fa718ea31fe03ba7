"""Work on many items in several processes, with results in order and no process left behind."""

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import Queue
from threading import Thread
from typing import Any, TypeVar

import torch

from wirework.errors import InputError, number_of
from wirework.signals import kept_from_children

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_PATIENCE = 10.0  # seconds that processes have to clean up before they are killed


def parallel_map(
    work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int
) -> Iterator[_Result]:
    """Yield what comes of each item, in order, worked on in `jobs` processes.

    The processes share this one's threads evenly. They end with the generator, in the middle of
    their work: by SIGTERM, on which a training run saves where it is, or by a kill where ten
    seconds for all of them are not enough. With this process they end however it dies, at once.

    Args:
        work: can be pickled, as must be the items and the results; what it raises is raised here.
        items: what to call it with.
        jobs: how many processes, 1 or more.

    Raises:
        InputError: `jobs` is below 1, or a process died.
    """
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, got {jobs}")
    threads = max(1, torch.get_num_threads() // jobs)
    workers: list[_Worker] = []
    with ExitStack() as stack:
        try:
            for _ in range(jobs):
                workers.append(stack.enter_context(_worker()))
            for worker in workers:
                worker.line.send((work, threads))
            yield from _in_order(workers, items)
            _dismiss(workers)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise InputError(
                f"one of {number_of(jobs, 'process')} died, perhaps for want of memory: try "
                "fewer jobs; the same call goes on from what was saved"
            ) from None
        finally:
            _end(workers)


# Not concurrent.futures: a signal while its processes start leaves a thread that is never joined.
@dataclass(frozen=True)
class _Worker:
    process: SpawnProcess
    line: Connection
    """Items go there, results come back."""


@contextmanager
def _worker() -> Iterator[_Worker]:
    """Start a process, and kill it with the block."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    line, other = context.Pipe()
    process = context.Process(target=_serve, args=(other,))
    with line:
        try:
            with other, _own_modules_only(), _kept_from_it():
                process.start()
            yield _Worker(process, line)
        finally:
            if process.pid is not None:
                process.kill()
                process.join()


@contextmanager
def _own_modules_only() -> Iterator[None]:
    """Keep a process that starts from importing what lies in the working folder.

    It then gets the path of this process, and with it the modules that this one would find.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _kept_from_it() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, as `kept_from_children` does."""
    resource_tracker.ensure_running()  # on its first start it unblocks what is blocked
    with kept_from_children():
        yield


def _in_order(workers: list[_Worker], items: Iterable[Any]) -> Iterator[Any]:
    """Give each worker an item as soon as it has none, and yield the results in order."""
    left, busy = deque(enumerate(items)), dict[Connection, int]()
    done: dict[int, tuple[Any, Exception | None]] = {}
    idle = deque(worker.line for worker in workers)
    count = len(left)
    for number in range(count):
        while number not in done:
            while idle and left:
                place, item = left.popleft()
                line = idle.popleft()
                line.send((item,))
                busy[line] = place
            for line in [one for one in wait(list(busy)) if isinstance(one, Connection)]:
                done[busy.pop(line)] = line.recv()
                idle.append(line)
        result, error = done.pop(number)
        if error is not None:
            raise error
        yield result


def _dismiss(workers: list[_Worker]) -> None:
    """Let processes with nothing left to do end by themselves.

    One that is killed leaves its semaphores, which the resource tracker warns of.
    """
    for worker in workers:
        worker.line.send(())
    _wait_for(workers, _PATIENCE / 2)


def _end(workers: list[_Worker]) -> None:
    """Stop processes in the middle of their work, and give them time to save."""
    left = [worker for worker in workers if worker.process.is_alive()]
    for worker in left:
        worker.process.terminate()
    _wait_for(left, _PATIENCE)


def _wait_for(workers: list[_Worker], seconds: float) -> None:
    """Wait until processes have ended, together no longer than that."""
    until = time.monotonic() + seconds
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))


def _serve(line: Connection) -> None:
    """Do in a fresh process what is asked for over a line, until nothing is: an empty tuple."""
    signal.signal(signal.SIGTERM, _leave)
    work, threads = line.recv()
    torch.set_num_threads(threads)
    asked: Queue[Any] = Queue()
    Thread(target=_listen, args=(line, asked), daemon=True).start()
    while item := asked.get():
        try:
            line.send((work(*item), None))
        except Exception as error:
            error.add_note(traceback.format_exc())
            line.send((None, error))
        except KeyboardInterrupt:  # a run that was told to stop, and has saved what it had
            return


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: this is the way out
    raise SystemExit


def _listen(line: Connection, asked: "Queue[Any]") -> None:
    """Hand on what comes over a line; leave at once when its other end closes, be it by a kill."""
    while True:
        try:
            asked.put(line.recv())
        except (EOFError, OSError):
            os._exit(1)
