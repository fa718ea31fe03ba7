"""Rows of a matrix in cache-sized pieces over as many threads as torch uses, for numpy's passes."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import torch

_PIECE = 1 << 19  # entries handled at once: they fit the cache, and the calls cost nothing


def each_piece(rows: int, width: int, work: Callable[[slice], None]) -> None:
    """Call `work` on slices that cover `rows`, cache-sized, over as many threads as torch uses.

    The calling thread works too and takes what a thread that comes late leaves.
    """
    step = max(1, _PIECE // width)
    slices = iter([slice(start, start + step) for start in range(0, rows, step)])

    def work_through() -> None:
        for piece in slices:  # one step of a list's iterator is atomic
            work(piece)

    others = torch.get_num_threads() - 1
    helpers = []
    if others and rows > step:
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


os.register_at_fork(after_in_child=_threads.cache_clear)  # threads do not live on in a child
