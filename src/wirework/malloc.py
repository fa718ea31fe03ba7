"""Keeping freed memory for the next pass of a model instead of returning it to the system.

glibc's malloc returns the end of its heap as soon as 64 MB of it are free. Each pass then gets new,
zeroed pages: tens of thousands in a training step with gates, a tenth of its time, and half of the
time of a wide sparse model's forward pass.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wirework import block_pool

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 1 << 25
"""Larger blocks are mapped separately, as malloc does by default: in the heap they would leave
holes until memory is full. Setting either threshold switches off malloc's own adjustment."""
_DURING = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: (1 << 31) - 1}
_AFTER = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: 2 * _LARGEST}


@contextmanager
def freed_memory_kept(*, same_sizes: bool = True) -> Iterator[None]:
    """Keep freed memory inside a `with` block, then return it. Works only on Linux with glibc.

    Of blocks inside each other, the outermost decides. Afterwards malloc's thresholds are 32 and
    64 MB, the values that it reaches by itself with large blocks. If the environment sets
    thresholds, nothing is changed.

    Args:
        same_sizes: whether all passes need memory of the same sizes, as steps of training do. Then
            large results use blocks of their size again (`block_pool.py`), and all free memory is
            returned at the end, which can take tens of milliseconds. Otherwise malloc keeps it, and
            returns it when it frees memory after the block.
    """
    global _n_blocks
    libc = _glibc()
    if libc is None or _set_by_environment():
        yield
        return
    _n_blocks += 1
    if _n_blocks == 1:
        _set(libc, _DURING)
        if same_sizes:
            block_pool.open_pool()
    try:
        yield
    finally:
        _n_blocks -= 1
        if not _n_blocks:
            block_pool.close_pool()
            _set(libc, _AFTER)
            if same_sizes:
                libc.malloc_trim(0)


_n_blocks = 0
"""Blocks of `freed_memory_kept` that were entered and not left."""


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def _set_by_environment() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}" in tunables
        for name in ("mmap_threshold", "trim_threshold", "top_pad", "mmap_max")
    )


def _glibc() -> ctypes.CDLL | None:
    name = "CS_GNU_LIBC_VERSION"
    is_glibc = name in getattr(os, "confstr_names", {}) and os.confstr(name)
    return ctypes.CDLL(None) if is_glibc else None
