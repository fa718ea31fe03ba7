"""The k entries of largest magnitude of each row, on any device, without a wait of the host.

The k-th largest key of a row is the threshold; of the entries that equal it, the first few are
kept. Nothing read from the device decides what is computed, so that all work is queued ahead.

`torch.topk` finds the threshold. On CUDA it is a radix selection: a row that one thread block
holds is read from memory about once, a longer one four times. Bisection over the bits of a float32
would read the rows 31 times, and write a mask each time. `topk` breaks ties arbitrarily, so only
its values are used, and a running count of the entries at the threshold breaks them here.

Keys are integers as wide as the floats: half the memory traffic for 16-bit floats, and a NaN has a
key above that of infinity. NaN is therefore always among the k largest and reaches the result.

Triton's kernel, which reads a row once, takes its place where it is faster (`triton/choice.py`).

Shapes: R rows, N entries a row.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wirework.nn.kernels.triton.choice import use_triton

INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}
"""The integer type as wide as each float type."""

_TRITON_WIDTH = 1 << 14  # a wider row does not fit the registers of a block of threads


def select(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep the k entries of largest magnitude of each row; ties go to the lower index.

    A NaN ranks above infinity, so that the caller finds it in the result.

    Args:
        x: (..., N) of a type in `INTEGERS`.
        k: 1 <= k <= N.

    Returns:
        (..., N) the kept values, 0 elsewhere, and the mask of exactly k entries of each row.

    Source: Gao et al. 2025, sec. 2.1.
    """
    width = x.shape[-1]
    fits = width <= _TRITON_WIDTH and x.dtype != torch.float64
    operation = f"AbsTopK {x.dtype} {1 << (width - 1).bit_length()}"
    if fits and use_triton(operation, x, partial(_ways_to_select, x, k)):
        return _ways_to_select(x, k)["triton"]()
    return select_by_torch(x, k)


def select_by_torch(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compute `select` with operations of torch."""
    mask = largest(magnitude_keys(x), k)
    return torch.where(mask, x, 0), mask


def pass_kept(grad: Tensor, mask: Tensor) -> Tensor:
    """Return the gradient (..., N) at the entries of the mask, 0 elsewhere."""
    fits = grad.dtype != torch.float64 and grad.numel() > 0
    if fits and use_triton(
        f"AbsTopK backward {grad.dtype}", grad, partial(_ways_to_pass, grad, mask)
    ):
        passed: Tensor = _ways_to_pass(grad, mask)["triton"]()
        return passed
    return torch.where(mask, grad, 0)


def _ways_to_select(x: Tensor, k: int) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    from wirework.nn.kernels.triton import abs_top_k

    return {
        "torch": partial(select_by_torch, x, k),
        "triton": partial(abs_top_k.select, x, k),
    }


def _ways_to_pass(grad: Tensor, mask: Tensor) -> dict[str, Callable[[], Any]]:
    from wirework.nn.kernels.triton import abs_top_k

    return {
        "torch": partial(torch.where, mask, grad, 0),
        "triton": partial(abs_top_k.pass_kept, grad, mask),
    }


def magnitude_keys(x: Tensor) -> Tensor:
    """Return integers in the order of |x|, with NaN above infinity.

    Args:
        x: (..., N) of a type in `INTEGERS`.

    Returns:
        (..., N), the bits of |x|.
    """
    integer = INTEGERS[x.dtype]
    return x.contiguous().view(integer) & torch.iinfo(integer).max


def has_nan(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bool scalar on the device: whether `magnitude_keys` of `dtype` got a NaN."""
    return keys.amax() > infinity_key(dtype)


def infinity_key(dtype: torch.dtype) -> int:
    """Return the key of infinity, the largest one that is not a NaN's."""
    info = torch.finfo(dtype)
    # All bits of the exponent are ones and those of the fraction are zeros.
    return int(torch.tensor(info.max, dtype=dtype).view(INTEGERS[dtype])) + 1


def largest(keys: Tensor, k: int) -> Tensor:
    """Return the mask of the k largest keys of each row; ties go to the lower index.

    Args:
        keys: (..., N) integers.
        k: 1 <= k <= N.

    Returns:
        (..., N) bool, True at exactly k entries of each row.
    """
    width = keys.shape[-1]
    if k == width:
        return torch.ones_like(keys, dtype=torch.bool)
    if k <= width // 2:
        threshold = keys.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    else:  # the largest dropped key: the dropped ones are fewer, so that `topk` writes less
        dropped = keys.topk(width - k, dim=-1, largest=False, sorted=False).values
        threshold = dropped.amax(-1, keepdim=True)
    above, ties = keys > threshold, keys == threshold
    n_ties = k - above.sum(-1, keepdim=True)
    narrow = width <= torch.iinfo(torch.int16).max
    rank = ties.cumsum(-1, dtype=torch.int16 if narrow else torch.int32)
    return torch.where(ties, rank <= n_ties, above)
