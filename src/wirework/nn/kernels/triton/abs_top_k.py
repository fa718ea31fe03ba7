"""AbsTopK in one pass over memory: a row stays in registers while its threshold is found.

The threshold is the largest key that at least k entries reach. It is built bit by bit from the
highest: a bit stays if k entries reach the key with it. Ties go to the lower index by a running
count. Values are read and written as integers, so that every float type takes the same path.
Shapes: R rows, N entries a row. Source: Gao et al. 2025, sec. 2.1.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from wirework.nn.kernels.device_top_k import INTEGERS

_PER_WARP = 512  # entries of a row for each warp, 16 for each thread: they fit its registers
_COPIED = 1 << 10  # entries of a program of the backward pass


def select(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k entries of largest magnitude of each row, as `device_top_k.select`.

    Args:
        x: (..., N) float32, bfloat16 or float16, N at most 16,384.
        k: 1 <= k <= N.

    Returns:
        (..., N) the kept values, 0 elsewhere, and the mask of exactly k entries of each row.
    """
    rows = _rows_of_bits(x)
    kept = torch.empty_like(rows)
    mask = torch.empty(rows.shape, dtype=torch.uint8, device=x.device)
    height, width = rows.shape
    columns = triton.next_power_of_2(width)
    with torch.cuda.device_of(x):  # triton launches on the current GPU
        _select_kernel[(height,)](
            rows, kept, mask, width, k,
            BITS=torch.iinfo(rows.dtype).bits - 1, COLUMNS=columns,
            num_warps=max(1, columns // _PER_WARP),
        )  # fmt: skip
    return kept.view(x.dtype).view(x.shape), mask.view(torch.bool).view(x.shape)


def pass_kept(grad: Tensor, mask: Tensor) -> Tensor:
    """Return the gradient (..., N) where the mask is True, 0 elsewhere."""
    rows = _rows_of_bits(grad)
    passed = torch.empty_like(rows)
    grid = (triton.cdiv(rows.numel(), _COPIED),)
    with torch.cuda.device_of(grad):
        _pass_kernel[grid](rows, mask.view(torch.uint8), passed, rows.numel(), SIZE=_COPIED)
    return passed.view(grad.dtype).view(grad.shape)


def _rows_of_bits(x: Tensor) -> Tensor:
    """Return the bits of floats as (R, N) integers."""
    return x.contiguous().view(INTEGERS[x.dtype]).view(-1, x.shape[-1])


@triton.jit
def _select_kernel(rows, kept, mask, width, k, BITS: tl.constexpr, COLUMNS: tl.constexpr):
    """Select in one row, padded to `COLUMNS`; keys have `BITS` bits."""
    column = tl.arange(0, COLUMNS)
    inside = column < width
    first = tl.program_id(0).to(tl.int64) * width
    bits = tl.load(rows + first + column, mask=inside, other=0)
    # The padding has key 0 and comes last: it loses to every entry.
    keys = bits.to(tl.int32) & ((1 << BITS) - 1)
    threshold = 0
    for step in range(BITS):
        candidate = threshold | (1 << (BITS - 1 - step))
        enough = tl.sum((keys >= candidate).to(tl.int32), axis=0) >= k
        threshold = tl.where(enough, candidate, threshold)
    above = keys > threshold
    ties = keys == threshold
    n_ties = k - tl.sum(above.to(tl.int32), axis=0)
    rank = tl.cumsum(ties.to(tl.int32), axis=0)
    chosen = above | (ties & (rank <= n_ties))
    tl.store(kept + first + column, tl.where(chosen, bits, 0), mask=inside)
    tl.store(mask + first + column, chosen.to(tl.uint8), mask=inside)


@triton.jit
def _pass_kernel(grad, mask, passed, size, SIZE: tl.constexpr):
    """Copy `SIZE` entries where the mask is 1."""
    places = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = places < size
    chosen = tl.load(mask + places, mask=inside, other=0) != 0
    values = tl.load(grad + places, mask=inside & chosen, other=0)
    tl.store(passed + places, values, mask=inside)
