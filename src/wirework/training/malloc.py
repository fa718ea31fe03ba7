"""Memory that a step frees and the next one takes again, kept from going back to the system.

glibc's malloc gives the end of its heap back as soon as 64 MB of it are free, so that a step pays
for fresh, zeroed pages again and again: tens of thousands of them in one with gates, a tenth of its
time and, on a virtual machine, much of its noise.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 1 << 25
"""Larger blocks are mapped one by one, as malloc does by itself: in the heap they would leave holes
that nothing fits, until memory is full. Setting either threshold ends malloc's own adjustment."""
_KEEP = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: (1 << 31) - 1}
_AFTER = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: 2 * _LARGEST}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the block, then give it back; nothing but on Linux with glibc.

    Afterwards malloc's thresholds are what it ends up with by itself in a process of large blocks,
    32 and 64 MB, and stay there. Thresholds that the environment sets are left alone.
    """
    libc = _glibc()
    if libc is None or _set_by_environment():
        yield
        return
    _set(libc, _KEEP)
    try:
        yield
    finally:
        _set(libc, _AFTER)
        libc.malloc_trim(0)


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
    known = name in getattr(os, "confstr_names", {}) and os.confstr(name)
    return ctypes.CDLL(None) if known else None
