"""AbsTopK: keep exactly the k entries of largest magnitude of each row, ties to the lower index.

Entries are selected by a threshold, without a sort: the bits of |x| are ordered like |x|. On the
CPU a compiled kernel does so (`compiled/selection.py`); on other devices and without numba, torch's
own operations select the same entries (`device_top_k.py`).
`abs_top_k_reference` is the plain definition.

Shapes: R rows, N entries a row. Source: Gao et al. 2025, sec. 2.1, App. A.1.
"""

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty
from wirework.nn.device_reads import check_nan
from wirework.nn.kernels import compiled, device_top_k
from wirework.nn.kernels.device_top_k import INTEGERS
from wirework.nn.kernels.pieces import each_piece

Bits = NDArray[np.signedinteger[Any]]


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
        check_nan(x, refuse_nan)
        return x
    kept: Tensor = _AbsTopK.apply(x, k)  # type: ignore[no-untyped-call]
    return kept


def abs_top_k_reference(x: Tensor, k: int) -> Tensor:
    """Compute `abs_top_k` by a stable sort: slow and simple, on any device."""
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x).scatter(-1, order, x.gather(-1, order))


def refuse_nan(has_nan: bool) -> None:
    """Raise the error of `abs_top_k` if there is a NaN."""
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
        backward = device_top_k.pass_kept if mask.dtype == torch.bool else _where_kept
        return backward(grads[0], mask), None


def _select(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the kept values and a mask of the kept entries.

    The mask has the shape of `x`, or from a compiled kernel a bit for each entry,
    (R, ceil(N / 8)) uint8.
    """
    width = x.shape[-1]
    if _by_torch(x):
        check_nan(x, refuse_nan)
        return device_top_k.select(x, k)
    from wirework.nn.kernels.compiled.selection import select_rows

    kept = empty(x.shape, x.dtype)
    bits, stride = _flat_bits(_rows_of_bits(x.detach()))
    out = _rows_of_bits(kept)
    mask = torch.empty(len(out), -(-width // 8), dtype=torch.uint8)
    packed = mask.numpy()
    magnitude = bits.dtype.type(np.iinfo(bits.dtype).max)
    infinity = _rows_of_bits(torch.tensor([torch.inf], dtype=x.dtype))[0, 0]

    def select(rows: slice) -> None:
        part = bits[rows.start * stride :]
        refuse_nan(select_rows(part, stride, k, magnitude, infinity, out[rows], packed[rows]))

    each_piece(len(out), width, select)
    return kept, mask


def _by_torch(x: Tensor) -> bool:
    return x.device.type != "cpu" or torch.compiler.is_compiling() or not compiled.is_available()


def _where_kept(x: Tensor, mask: Tensor) -> Tensor:
    """Return `x` where the bit in a mask of bits is 1, else 0."""
    from wirework.nn.kernels.compiled.selection import pass_rows

    passed = empty(x.shape, x.dtype)
    bits, out, packed = _rows_of_bits(x.contiguous()), _rows_of_bits(passed), mask.numpy()
    each_piece(len(bits), x.shape[-1], lambda rows: pass_rows(bits[rows], packed[rows], out[rows]))
    return passed


def _rows_of_bits(x: Tensor) -> Bits:
    """Return the bits of floats as (R, N) integers, without a copy where rows are contiguous."""
    bits: Bits = x.view(INTEGERS[x.dtype]).reshape(-1, x.shape[-1]).numpy()
    return bits


def _flat_bits(rows: Bits) -> tuple[Bits, int]:
    """Return rows as one sequence, without a copy if there are only gaps between them, and stride.

    Rows with gaps are, for instance, the queries in the joint output of queries, keys and values.
    """
    (n_rows, width), (stride, step) = rows.shape, rows.strides
    if n_rows > 1 and step == rows.itemsize and stride >= width * step:
        flat_shape = ((n_rows - 1) * (stride // step) + width,)
        return as_strided(rows, flat_shape, (step,)), stride // step
    return np.ascontiguousarray(rows).reshape(-1), width
