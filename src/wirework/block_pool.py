"""Large blocks of memory that are used again for results of the same size.

The passes of a model need the same sizes again and again. malloc puts freed blocks of all sizes
together, and small results that live long leave holes that no large one fits into: a training step
with AbsTopK then needs a quarter more memory than its tensors have. Here each size has its own free
blocks.
"""

import mmap
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 20
_MAX_IDLE = 10_000
"""Results after which a free block is returned to the system: several steps of training."""


def empty(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an uninitialised contiguous tensor on the CPU, like `torch.empty`.

    Between `open_pool` and `close_pool`, large ones take a free block, to which they return it when
    no tensor uses it.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if not _is_open or size < _SMALLEST:
        return torch.empty(*shape, dtype=dtype)
    block = _take(size)
    array = np.frombuffer(block, np.uint8)
    # torch drops its reference to the array when the last tensor of the memory is gone.
    weakref.finalize(array, _give_back, block).atexit = False
    return torch.from_numpy(array).view(dtype).view(*shape)


def empty_like(x: Tensor) -> Tensor:
    """Return `empty` with the shape and dtype of a tensor."""
    return empty(x.shape, x.dtype)


def open_pool() -> None:
    """Use blocks again from now on."""
    global _is_open
    _is_open = True


def close_pool() -> None:
    """Return all free blocks to the system; those in use follow when they are free."""
    global _is_open
    _is_open = False
    _free.clear()


_is_open = False
_n_results = 0
_free: dict[int, list[tuple[int, mmap.mmap]]] = {}
"""Free blocks by size, each with the number of the result after which it became free."""


def _take(size: int) -> mmap.mmap:
    global _n_results
    _n_results += 1
    free = _free.get(size)
    if free:
        return free.pop()[1]
    for blocks in _free.values():
        blocks[:] = [block for block in blocks if _n_results - block[0] < _MAX_IDLE]
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(block: mmap.mmap) -> None:
    if _is_open:
        _free.setdefault(len(block), []).append((_n_results, block))
