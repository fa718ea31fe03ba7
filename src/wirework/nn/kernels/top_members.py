"""The chosen channels of AbsTopK, for circuits that need few channels of a site.

Shapes: N entries a row, M chosen ones.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.top_k import abs_top_k, refuse_nan

_FEW = 8
"""Entries per chosen one from which counting over a row is faster than a selection."""


def top_members(x: Tensor, k: int, chosen: Tensor) -> Tensor:
    """Return `abs_top_k(x, k)[..., chosen]`.

    Args:
        x: (..., N) float64 or float32 on the CPU.
        k: number of entries that AbsTopK keeps in each row, 1 <= k <= N.
        chosen: (M,) int64, distinct indices.

    Returns:
        (..., M). The gradient passes at the chosen entries that are kept.

    Raises:
        ValueError: as `abs_top_k`.
    """
    width = x.shape[-1]
    is_few = _FEW * len(chosen) <= width
    if not is_few or not 1 <= k < width or not x.numel() or not compiled.is_available():
        return abs_top_k(x, k)[..., chosen]
    members: Tensor = _TopMembers.apply(x, k, chosen)  # type: ignore[no-untyped-call]
    return members


class _TopMembers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int, chosen: Tensor) -> Tensor:
        from wirework.nn.kernels.compiled.top_members import keep_members

        n_chosen, width = len(chosen), x.shape[-1]
        members = torch.empty(*x.shape[:-1], n_chosen, dtype=x.dtype)
        kept = torch.empty(members.shape, dtype=torch.bool)
        rows = x.detach().contiguous().view(-1, width).numpy()
        out, mask = members.view(-1, n_chosen).numpy(), kept.view(-1, n_chosen).numpy()
        indices = chosen.numpy()

        def fill(part: slice) -> None:
            refuse_nan(keep_members(rows[part], k, indices, out[part], mask[part]))

        each_piece(len(rows), width, fill)
        ctx.save_for_backward(kept, chosen)
        ctx.width = width
        return members

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        kept, chosen = ctx.saved_tensors
        gradient = grads[0].new_zeros(*kept.shape[:-1], ctx.width)
        return gradient.index_copy_(-1, chosen, grads[0] * kept), None, None
