"""AbsTopK: keep exactly the k entries of largest magnitude of each row, ties to the lower index.

Entries are selected by a threshold, without an argsort. The entries of a row become integer keys
with the order of their magnitudes (the bits of |x| are ordered like |x|); the k-th largest key is
the threshold. On the CPU, rows are processed in pieces that stay in cache, and numpy's partition
gives the threshold, several times faster than `torch.topk` (benchmarks/README.md). Other devices:
`device_top_k.py`.
`abs_top_k_reference` is the plain definition.

Shapes: R rows, N entries a row. Source: Gao et al. 2025, sec. 2.1, App. A.1.
"""

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.device_reads import check_nan
from wirework.nn.kernels import device_top_k
from wirework.nn.kernels.device_top_k import INTEGERS
from wirework.nn.kernels.pieces import each_piece

Bytes = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.signedinteger[Any]]
Ints = npt.NDArray[np.integer[Any]]
Keys = npt.NDArray[np.unsignedinteger[Any]]
Mask = npt.NDArray[np.bool_]

_BLOCK = 512  # numpy sorts up to 512 keys in one branch-free network; above that it is 5x slower


def abs_top_k(x: Tensor, k: int) -> Tensor:
    """Zero all but the k entries of largest magnitude along the last dimension.

    Args:
        x: (..., N) float64, float32, bfloat16 or float16.
        k: number of entries kept in each row, 1 <= k <= N. Ties go to the lower index.

    Returns:
        (..., N), dtype of `x`. The gradient passes at exactly the k kept entries.

    Raises:
        ValueError: `x` is not floating-point, has no dimension or has a NaN, or k is out of range.
            In a training step on a device, the step raises the error for NaN.

    Source: Gao et al. 2025, sec. 2.1.
    """
    if not x.is_floating_point() or not x.dim():
        raise ValueError(f"AbsTopK takes rows of floats, got {x.dtype} {tuple(x.shape)}")
    width = x.shape[-1]
    if not 1 <= k <= width:
        raise ValueError(f"k must be between 1 and the width {width}, got {k}")
    if k == width or not x.numel():
        check_nan(x, _refuse_nan)
        return x
    kept: Tensor = _AbsTopK.apply(x, k)  # type: ignore[no-untyped-call]
    return kept


def abs_top_k_reference(x: Tensor, k: int) -> Tensor:
    """Compute `abs_top_k` by a stable sort: slow and simple, on any device."""
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x).scatter(-1, order, x.gather(-1, order))


def _refuse_nan(has_nan: bool) -> None:
    if has_nan:
        raise ValueError("AbsTopK got NaN, which has no rank")


class _AbsTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int) -> Tensor:
        kept, mask = _select(x, k)
        ctx.save_for_backward(mask)
        return kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grads[0] * mask if mask.dtype == torch.bool else _where_kept(grads[0], mask)), None


def _select(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the kept values and a mask of the kept entries.

    The mask has the shape of `x`, or on the CPU one bit for each entry: (R, ceil(N / 8)) uint8.
    """
    width = x.shape[-1]
    if _by_torch(x):
        check_nan(x, _refuse_nan)
        return device_top_k.select(x, k)
    kept = torch.empty(x.shape, dtype=x.dtype)
    bits, out = _rows_of_bits(x.detach()), _rows_of_bits(kept)
    mask = torch.empty(len(bits), -(-width // 8), dtype=torch.uint8)
    packed = mask.numpy()
    infinity = int(torch.tensor(torch.inf, dtype=x.dtype).view(INTEGERS[x.dtype]))

    def select_rows(rows: slice) -> None:
        chosen, largest = _select_rows(bits[rows], k, out[rows])
        _refuse_nan(largest > infinity)
        packed[rows] = _pack(chosen)

    each_piece(len(bits), width, select_rows)
    return kept, mask


def _by_torch(x: Tensor) -> bool:
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def _where_kept(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x` where the mask is 1, else 0; integer products, as float times bool is slow."""
    passed = torch.empty(x.shape, dtype=x.dtype)
    bits, out, packed = _rows_of_bits(x), _rows_of_bits(passed), mask.numpy()
    width = x.shape[-1]

    def pass_rows(rows: slice) -> None:
        np.multiply(bits[rows], _unpack(packed[rows], width), out=out[rows])

    each_piece(len(bits), width, pass_rows)
    return passed


def _pack(chosen: Mask) -> Bytes:
    """Return (R, N) packed into bits, (R, ceil(N / 8)); flat if possible, which is faster."""
    if chosen.shape[1] % 8:
        return np.packbits(chosen, axis=1)
    return np.packbits(chosen.reshape(-1)).reshape(len(chosen), -1)


def _unpack(packed: Bytes, width: int) -> Bytes:
    """Return the mask that `_pack` packed as zeros and ones, (R, width)."""
    if width % 8:
        return np.unpackbits(packed, axis=1, count=width)
    return np.unpackbits(packed.reshape(-1)).reshape(-1, width)


def _rows_of_bits(x: Tensor) -> Bits:
    """Return the bits of floats as (R, N) integers, without a copy where rows are contiguous."""
    bits: Bits = x.view(INTEGERS[x.dtype]).reshape(-1, x.shape[-1]).numpy()
    return bits


_SIMD = np.show_config("dicts")["SIMD Extensions"].get("found", [])
_KEYS = {2: np.uint16 if "AVX512_ICL" in _SIMD else np.uint32, 4: np.uint32, 8: np.uint64}
"""Key type by bytes of the float. Without AVX512_ICL numpy may sort 16-bit keys with plain code,
much slower than 32-bit keys."""


def _select_rows(bits: Bits, k: int, out: Bits) -> tuple[Mask, int]:
    """Fill `out` for rows of float bits (R, N); return the mask (R, N) and the largest key.

    The next call in the same thread overwrites the mask.
    """
    keys: Keys = _buffer("keys", bits.shape, _KEYS[bits.itemsize])
    np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=keys, casting="unsafe")
    threshold, n_ties = kth_largest(keys, k)
    chosen: Mask = _buffer("mask", bits.shape, np.bool_)
    places = np.flatnonzero(np.equal(keys, threshold, out=chosen))
    np.greater_equal(keys, threshold, out=chosen)
    chosen.reshape(-1)[_beyond(places, n_ties, bits.shape[1])] = False
    np.multiply(bits, chosen, out=out)
    return chosen, int(keys.max())


def _beyond(places: Ints, counts: Ints, width: int) -> Ints:
    """Return the flat indices, given in ascending order, after the first `counts` of each row."""
    rows = places // width
    first = np.searchsorted(rows, np.arange(len(counts)))
    beyond: Ints = places[np.arange(len(places)) - first[rows] >= counts[rows]]
    return beyond


def kth_largest(keys: Keys, k: int) -> tuple[Keys, Ints]:
    """Return the k-th largest key of each row, and how many of the row's k largest equal it.

    Args:
        keys: (R, N) unsigned.
        k: 1 <= k <= N.

    Returns:
        (R, 1) keys, overwritten by the next call in the same thread, and (R,) counts.
    """
    if keys.shape[1] > _BLOCK >= k:
        work = _largest_block(keys)
    else:
        work = _buffer("work", keys.shape, keys.dtype)
        work[...] = keys
    last = work.shape[1] - k
    work.partition(last, axis=1)
    threshold = work[:, last : last + 1]
    return threshold, np.equal(work[:, last:], threshold).sum(axis=1)


def _largest_block(keys: Keys) -> Keys:
    """Return the `_BLOCK` largest keys of each row, unordered, by pairwise merging of blocks.

    Of two sorted blocks, the larger of each pair (i-th smallest, i-th largest) is in the upper half
    of their union, so one elementwise maximum halves the number of blocks.
    """
    rows, width = keys.shape
    n_blocks = -(-width // _BLOCK)
    blocks: Keys = _buffer("work", (rows, n_blocks, _BLOCK), keys.dtype)
    padded = blocks.reshape(rows, -1)
    padded[:, :width], padded[:, width:] = keys, 0
    while n_blocks > 1:
        blocks[:, :n_blocks].sort(axis=2)
        half = n_blocks // 2
        reversed_blocks = blocks[:, n_blocks - half : n_blocks, ::-1]
        np.maximum(blocks[:, :half], reversed_blocks, out=blocks[:, :half])
        n_blocks -= half
    return blocks[:, 0]


_buffers = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return reused memory of the current thread: new memory costs more than the passes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    buffer: Bytes | None = getattr(_buffers, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.uint8)
        setattr(_buffers, name, buffer)
    return buffer[:size].view(dtype).reshape(shape)
