"""Work on many items in several processes, with results in order and no process left behind."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, TypeVar

import torch

from wirework.errors import InputError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_begun: list[Callable[[Any], Any]] = []  # in a worker: what it does


def side_by_side(
    work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int
) -> Iterator[_Result]:
    """Yield what comes of each item, in order, worked on in `jobs` processes.

    The processes share this one's threads evenly. They end with the generator, and with this
    process however it dies, in the middle of their work.

    Args:
        work: can be pickled, as must be the items and the results; what it raises is raised here.
        items: what to call it with.
        jobs: how many processes, 1 or more.

    Raises:
        InputError: `jobs` is below 1, or a process died.
    """
    if jobs < 1:
        raise InputError(f"jobs must be 1 or more, got {jobs}")
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    alive, life = context.Pipe(duplex=False)
    given = (work, max(1, torch.get_num_threads() // jobs), alive)
    with life, alive, ProcessPoolExecutor(jobs, context, _begin, given) as pool:
        try:
            yield from pool.map(_call, items)
        except BrokenProcessPool:
            raise InputError(
                f"one of {jobs} processes died, perhaps for want of memory: try fewer jobs; the "
                "same call goes on from what was saved"
            ) from None
        finally:
            life.close()


def _begin(work: Callable[[Any], Any], threads: int, alive: Connection) -> None:
    """Make a fresh process ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    torch.set_num_threads(threads)
    _begun.append(work)
    Thread(target=_end_with, args=(alive,), daemon=True).start()


def _end_with(alive: Connection) -> None:
    """Leave at once when the other end of a pipe is closed, be it by a kill."""
    alive.poll(None)
    os._exit(1)


def _call(item: Any) -> Any:
    return _begun[0](item)
