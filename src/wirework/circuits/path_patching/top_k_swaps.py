"""Slope of AbsTopK between two inputs that accounts for the channels swapped between them.

AbsTopK keeps the k channels of largest magnitude. Where the selection changes between two inputs
a and b, its output jumps. Gradients do not contain jumps, so integrated gradients miss a part of
the difference between two runs. The slope here replaces the gradient and is exact: it maps a
gradient g of the output to a vector s of the input with

    sum over channels of s (b - a)  =  sum over channels of g (AbsTopK(b) - AbsTopK(a)).

- s contains g for a channel kept at both ends, g / 2 for one kept at one end.
- Channel i takes the place of channel j because |x_i| - |x_j| grows from below zero to above it.
  The jump, divided by this growth, is a slope with respect to the magnitudes: it is added for i
  and subtracted for j.

Each AbsTopK keeps k channels, so as many enter as leave. Both are sorted by the growth of their
magnitudes and paired in this order, which keeps the growth of the differences away from zero.
The idea is the rescale rule of DeepLIFT (Shrikumar et al. 2017, arXiv 1704.02685): finite
differences in place of derivatives.
Shapes: B sequences, T tokens, N channels, k of them kept, P pairs of channels swapped, M
destinations.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wirework.nn.sites import Edit, Site, edited, find_sites

Selections = Mapping[str, list[tuple[Tensor, Tensor]]]
"""By site, for every call in a run: input of AbsTopK and channels it kept, both (B, T, N)."""


@contextmanager
def recorded_selections(model: nn.Module) -> Iterator[Selections]:
    """Record the inputs and selections of AbsTopK in the run inside the block.

    Args:
        model: a model whose sites may have AbsTopK. Its run must remove no edges, so that an input
            (M, B, T, N) is the same for all M destinations; it is recorded once.

    Yields:
        The record, empty until the model is run.
    """
    selections: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def recorder(name: str, k: int) -> Edit:
        def top_k(x: Tensor) -> Tensor:
            of_one_destination = x.detach()[0] if x.dim() > 3 else x.detach()
            is_kept = top_k_mask(of_one_destination, k)
            selections[name].append((of_one_destination, is_kept))
            return (of_one_destination * is_kept).expand_as(x)

        return top_k

    with _replaced(model, {name: recorder(name, k) for name, k in _top_k_sites(model).items()}):
        yield selections


@contextmanager
def slopes_between(model: nn.Module, start: Selections, stop: Selections) -> Iterator[None]:
    """Replace AbsTopK inside the block by the straight line between its outputs in two runs.

    Its value is the mean of the two outputs, whatever its input; its gradient is the slope.

    Args:
        model: the model of both runs.
        start: result of `recorded_selections` for the first run.
        stop: result of `recorded_selections` for the second run.
    """

    def line(name: str) -> Edit:
        ends = iter(zip(start[name], stop[name], strict=True))

        def top_k(x: Tensor) -> Tensor:
            (a, kept_a), (b, kept_b) = next(ends)
            value: Tensor = _Slope.apply(x, a, b, kept_a, kept_b)  # type: ignore[no-untyped-call]
            return value

        return top_k

    with _replaced(model, {name: line(name) for name in _top_k_sites(model)}):
        yield


def top_k_mask(x: Tensor, k: int) -> Tensor:
    """Return (..., N) bool, True for the k entries of largest magnitude.

    Of equal magnitudes those with the lower index are kept, as in `abs_top_k`.

    Args:
        x: (..., N).
        k: how many to keep, at most N.
    """
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x, dtype=torch.bool).scatter(-1, order, True)


class _Slope(torch.autograd.Function):
    """AbsTopK as a straight line between two inputs a and b.

    Shapes: input x (M, B, T, N) or (B, T, N); a, b and their kept channels (B, T, N).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, kept_a: Tensor, kept_b: Tensor
    ) -> Tensor:
        magnitude_growth = b.abs() - a.abs()
        entering, growth_in = _by_growth(magnitude_growth, kept_b & ~kept_a)
        leaving, growth_out = _by_growth(magnitude_growth, kept_a & ~kept_b)
        largest = torch.maximum(a.abs(), b.abs()).amax(-1, keepdim=True)
        smallest_growth = largest * torch.finfo(x.dtype).eps  # rounding may leave less
        pair_growth = (growth_in - growth_out).maximum(smallest_growth)
        is_pair = growth_in > -torch.inf  # the other entries are padding
        inverse_growth = torch.where(is_pair, 1 / pair_growth, 0)
        difference = b - a
        magnitude_slope = torch.where(difference == 0, a.sign(), magnitude_growth / difference)
        kept_share = (kept_a.to(x.dtype) + kept_b.to(x.dtype)) / 2
        ctx.save_for_backward(
            kept_share, (a + b) / 2, entering, leaving, inverse_growth, magnitude_slope
        )
        return ((a * kept_a + b * kept_b) / 2).expand_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        kept_share, mean, entering, leaving, inverse_growth, magnitude_slope = ctx.saved_tensors
        (grad,) = grads
        effect = grad * mean  # first-order effect of a channel that is switched on
        entering, leaving = (rows.expand(*grad.shape[:-1], -1) for rows in (entering, leaving))
        jump = effect.gather(-1, entering) - effect.gather(-1, leaving)
        jump_slope = jump * inverse_growth
        by_magnitude = torch.zeros_like(grad)
        by_magnitude.scatter_add_(-1, entering, jump_slope)
        by_magnitude.scatter_add_(-1, leaving, -jump_slope)
        return grad * kept_share + by_magnitude * magnitude_slope, None, None, None, None


def _by_growth(magnitude_growth: Tensor, is_chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the chosen channels of each row by the growth of their magnitude, largest first.

    Args:
        magnitude_growth: (..., N).
        is_chosen: (..., N) bool.

    Returns:
        Channels and their growth, each (..., P). P is the largest number of chosen channels in a
        row; shorter rows are padded with other channels, whose growth is minus infinity.
    """
    n_pairs = int(is_chosen.sum(-1).max())
    growth, channels = magnitude_growth.masked_fill(~is_chosen, -torch.inf).topk(n_pairs, dim=-1)
    return channels, growth


def _top_k_sites(model: nn.Module) -> dict[str, int]:
    """Return k of each site with AbsTopK."""
    return {name: site.k for name, site in find_sites(model).items() if site.k is not None}


@contextmanager
def _replaced(model: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Replace AbsTopK at some sites by edits inside the block."""
    sites: dict[str, Site] = find_sites(model)
    before = {name: sites[name].k for name in edits}
    try:
        for name in edits:
            sites[name].k = sites[name].width
        with edited(sites, edits):
            yield
    finally:
        for name, k in before.items():
            sites[name].k = k
