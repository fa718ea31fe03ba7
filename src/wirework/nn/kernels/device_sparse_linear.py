"""Linear layers of few nonzero weights on a GPU, from their entries, by a Triton kernel.

WIREWORK_TRITON=1 asks for it; `auto` does not use it, because the kernel has not run on a GPU. A
weight is read in a block of `unchanged_weights` only, once for all products: to read it, the host
waits for the device. No gradient of the weight is computed, so that a training step is never
affected. This module does not import triton before a product is computed.

Shapes: D inputs, M outputs, E nonzero entries.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wirework.nn.kernels.sparse_linear import (
    highest_density,
    once_if_unchanged,
    weights_are_unchanged,
)
from wirework.nn.kernels.triton.choice import can_run, is_forced

if TYPE_CHECKING:
    from wirework.nn.kernels.triton.sparse_product import EntryPositions

_MAX_DENSITY = 1 / 8  # a guess, not measured; WIREWORK_SPARSE sets another
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # the kernel adds up in float32


class Entries(NamedTuple):
    """The nonzero entries of a matrix on a device."""

    values: Tensor
    """(E,) row by row, in the dtype of the matrix."""
    positions: "EntryPositions"


def linear_by_triton(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """Return `torch.nn.functional.linear` from the entries of the weight, or None.

    Args:
        x: (..., D).
        weight: (M, D).
        bias: (M,) of the dtype of `weight`, or None. It is added to the rounded product.

    Returns:
        (..., M) contiguous, with gradients of `x` and `bias`; None if the layer has to be computed
        in another way.
    """
    if not is_wanted(x, weight):
        return None
    entries = once_if_unchanged(_entries_if_few, weight)
    if entries is None:
        return None
    from wirework.nn.kernels.triton.sparse_product import sparse_product

    out = sparse_product(x, *entries)
    return out if bias is None else out + bias


def is_wanted(x: Tensor, weight: Tensor) -> bool:
    """Return whether a product is computed from the entries of the weight, if these are few.

    Raises:
        InputError: WIREWORK_TRITON is not 0, 1 or auto, or it is 1 and triton is not installed.
    """
    return (
        not torch.compiler.is_compiling()  # first: the rest cannot be traced
        and weights_are_unchanged()
        and can_run(weight.device)
        and is_forced()
        and not (torch.is_grad_enabled() and weight.requires_grad)
        and not torch.is_autocast_enabled(weight.device.type)
        and x.device == weight.device
        and x.dtype == weight.dtype
        and weight.dtype in _DTYPES
        and x.numel() > 0
        and weight.numel() > 0
        and not weight._is_view()  # a new object at each product would be read each time
    )


def has_few_entries(weight: Tensor) -> bool:
    """Return whether the density of a weight is at most the limit; the host waits for the device.

    Raises:
        InputError: WIREWORK_SPARSE is no density.
    """
    highest = highest_density()
    limit = _MAX_DENSITY if highest is None else highest
    return int(weight.count_nonzero()) <= limit * weight.numel()


def _entries_if_few(weight: Tensor) -> Entries | None:
    if not has_few_entries(weight):
        return None
    from wirework.nn.kernels.triton.sparse_product import entry_positions

    # A later pass of the block may need gradients, which inference tensors do not allow.
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = weight.nonzero().unbind(1)
        starts = F.pad((weight != 0).sum(1).cumsum(0), (1, 0))
        return Entries(weight[rows, columns], entry_positions(starts, columns, weight.shape[1]))
