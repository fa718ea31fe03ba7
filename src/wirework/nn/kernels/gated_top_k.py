"""AbsTopK, then mean ablation under trained masks, of several sites side by side.

Shapes: R masks, U rows of each, C channels of all sites.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty_like
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.top_k import refuse_nan


class SiteChannels(NamedTuple):
    """Channels of a site that are computed; the others are always zero."""

    channels: Tensor
    """(C,) int64, ascending."""
    k: int | None
    """Entries that AbsTopK keeps; None if there is no AbsTopK."""


class SiteTable(NamedTuple):
    """Sites side by side, as the kernel takes them."""

    sites: NDArray[np.int64]
    """(S, 2) the channel after the last one of each site, and its k, or -1 without AbsTopK."""
    left_out: NDArray[np.int64]
    """(C,) how many channels of its site are left out before each channel."""

    @classmethod
    def of(cls, sites: Sequence[SiteChannels]) -> "SiteTable":
        """Return the table of sites in the order of their channels."""
        ends = np.cumsum([len(site.channels) for site in sites])
        before = [site.channels.numpy() - np.arange(len(site.channels)) for site in sites]
        ks = [-1 if site.k is None else site.k for site in sites]
        return cls(np.stack([ends, ks], 1), np.concatenate(before))


def gated_top_k(x: Tensor, sites: SiteTable, gates: Tensor, mean: Tensor) -> Tensor:
    """Return AbsTopK of each site, with the nodes outside the gates at their means.

    Args:
        x: (R, U, C) finite float32 on the CPU, the computed channels of all sites.
        sites: the sites.
        gates: (R, C) float32.
        mean: (C,) float32.

    Returns:
        (R, U, C); gradients flow to `x` and `gates`, the same bits for any number of threads.

    Raises:
        ValueError: an entry of a site with AbsTopK is NaN.
    """
    out: Tensor = _GatedTopK.apply(x, sites, gates, mean)  # type: ignore[no-untyped-call]
    return out


class _GatedTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sites: SiteTable, gates: Tensor, mean: Tensor) -> Tensor:
        from wirework.nn.kernels.compiled.gated_top_k import keep_and_ablate

        x, gates = x.detach().contiguous(), gates.detach().contiguous()
        out, kept = empty_like(x), empty_like(x)
        inputs, weights, made, mask = (t.numpy() for t in (x, gates, out, kept))
        bits, means = x.view(torch.int32).numpy(), mean.numpy()

        def fill(part: slice) -> None:
            refuse_nan(
                keep_and_ablate(
                    inputs[part], bits[part], *sites, weights[part], means, made[part], mask[part]
                )
            )  # fmt: skip

        each_piece(len(x), max(1, x.shape[1:].numel()), fill)
        ctx.save_for_backward(x, kept, gates, mean)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None]:
        from wirework.nn.kernels.compiled.gated_top_k import keep_and_ablate_backward

        x, kept, gates, mean = ctx.saved_tensors
        to_x, to_gates = empty_like(x), torch.empty_like(gates)
        slopes, inputs, mask, weights, of_x, of_gates = (
            t.numpy() for t in (grads[0].contiguous(), x, kept, gates, to_x, to_gates)
        )
        means = mean.numpy()

        def fill(part: slice) -> None:
            keep_and_ablate_backward(
                slopes[part], inputs[part], mask[part], weights[part], means,
                of_x[part], of_gates[part],
            )  # fmt: skip

        each_piece(len(x), max(1, x.shape[1:].numel()), fill)
        return to_x, None, to_gates, None
