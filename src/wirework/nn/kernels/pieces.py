"""Work on the rows of a matrix in cache-sized pieces, over as many threads as torch uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

_PIECE = 1 << 19  # entries of a piece: they fit the cache, and the calls cost next to nothing


def each_piece(rows: int, width: int, work: Callable[[slice], None]) -> None:
    """Call a function on cache-sized slices that cover all rows, over torch's number of threads.

    The calling thread takes slices too, so a thread that starts late does not delay the work.

    Args:
        rows: number of rows.
        width: entries of a row.
        work: called with a slice of the rows, in any order and thread.
    """
    step = max(1, _PIECE // width)
    slices = iter([slice(start, start + step) for start in range(0, rows, step)])

    def work_through() -> None:
        for piece in slices:  # the next step of a list's iterator is atomic
            work(piece)

    others = torch.get_num_threads() - 1
    if not others or rows <= step:
        work_through()
        return
    helpers = [_threads(others).submit(work_through) for _ in range(others)]
    try:
        work_through()
    finally:
        wait(helpers)
    for helper in helpers:
        helper.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="wirework")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has no threads
