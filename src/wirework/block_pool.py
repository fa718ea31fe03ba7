"""Large blocks of memory that are used again for results of the same size.

The passes of a model need the same sizes again and again. malloc puts freed blocks of all sizes
together, and small results that live long leave holes that no large one fits into: a training step
with AbsTopK then needs a quarter more memory than its tensors have. Here each size has its own free
blocks.
"""

import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from threading import RLock

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 20
_MOST_HELD = 1.5
"""Bytes of all blocks over the most bytes that were in use at once; beyond, free blocks of sizes
that were not used for longest are returned to the system."""


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised contiguous tensor on the CPU, like `torch.empty`.

    Between `open_pool` and `close_pool`, one of 1 MB or more takes a free block, to which it
    returns it when no tensor uses it. Such a tensor cannot be resized.
    """
    size, pool = math.prod(shape) * dtype.itemsize, _pool  # another thread may close the pool
    block = None if pool is None or size < _SMALLEST else pool.take(size)
    if pool is None or block is None:
        return torch.empty(*shape, dtype=dtype, device="cpu")
    array = np.frombuffer(block, np.uint8)
    # torch drops its reference to the array when the last tensor of the memory is gone.
    weakref.finalize(array, pool.give_back, block).atexit = False
    return torch.from_numpy(array).view(dtype).view(*shape)


def empty_like(x: Tensor) -> Tensor:
    """Return an uninitialised contiguous tensor like `x`; on the CPU, as `empty` does."""
    if x.device.type != "cpu":
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    return empty(x.shape, x.dtype)


def open_pool() -> None:
    """Use blocks again from now on."""
    global _pool
    _pool = BlockPool()


def close_pool() -> None:
    """Return all free blocks to the system; those in use follow when they are free."""
    global _pool
    if _pool is not None:
        _pool.close()
    _pool = None


class BlockPool:
    """Blocks of memory, each used by one result at a time."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}
        """Free blocks by size, in the order in which sizes were last used."""
        self._returned: deque[mmap.mmap] = deque()
        self._is_closed = False
        self._lock = RLock()
        self._in_use = self._most_in_use = self._held = 0

    def take(self, size: int) -> mmap.mmap | None:
        """Return a block of so many bytes, or None if the system has none."""
        with self._lock:
            self._collect()
            blocks = self._free.pop(size, [])
            self._free[size] = blocks  # the last one
            self._in_use += size
            self._most_in_use = max(self._most_in_use, self._in_use)
            if blocks:
                return blocks.pop()
            self._held += size
            self._shrink(int(_MOST_HELD * self._most_in_use))
            block = _map(size)
            if block is None:
                self._shrink(0)
                block = _map(size)
            if block is None:
                self._in_use, self._held = self._in_use - size, self._held - size
            return block

    def give_back(self, block: mmap.mmap) -> None:
        """Take back a block that nothing uses.

        Python's garbage collector may call this at any moment and in any thread, so that it only
        adds to a queue, which is atomic.
        """
        if not self._is_closed:
            self._returned.append(block)

    def close(self) -> None:
        """Return all free blocks to the system, and take none back from now on."""
        self._is_closed = True
        self._returned.clear()
        self._free.clear()

    def free_bytes(self) -> int:
        """Return the bytes of blocks that nothing uses."""
        with self._lock:
            self._collect()
            return sum(size * len(blocks) for size, blocks in self._free.items())

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.setdefault(len(block), []).append(block)
            self._in_use -= len(block)

    def _shrink(self, limit: int) -> None:
        """Return free blocks to the system until at most so many bytes are held."""
        for size in list(self._free):
            while self._held > limit and self._free[size]:
                self._free[size].pop()
                self._held -= size
            if not self._free[size]:
                del self._free[size]


_pool: BlockPool | None = None


def _map(size: int) -> mmap.mmap | None:
    try:
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
