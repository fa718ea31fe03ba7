"""Slopes of AbsTopK between two inputs that include the channels swapped between them.

The gradient of AbsTopK covers only the kept channels. Between two inputs the selection changes and
the output jumps, which no gradient includes. The slope here is exact between inputs a and b:
slope times (b - a) is AbsTopK(b) - AbsTopK(a).

- A channel kept at both ends has slope 1, at one end 1/2, at none 0.
- Channel i takes the place of channel j because |x_i| - |x_j| grows from below zero to above it.
  The jump is spread over this growth: it adds to the slopes of i and j.

Each AbsTopK keeps k channels, so as many enter as leave. They are paired by rank of the growth of
their magnitudes, which keeps the growth of the differences away from zero.
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

Choices = Mapping[str, list[tuple[Tensor, Tensor]]]
"""By site, for every call in a run: input of AbsTopK and channels it kept, both (B, T, N)."""


@contextmanager
def recorded_choices(model: nn.Module) -> Iterator[Choices]:
    """Record inputs and selections of AbsTopK in the run inside the block.

    The run has no gates, so inputs (M, B, T, N) are the same for all destinations.
    """
    choices: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def keep(name: str, k: int) -> Edit:
        def top_k(x: Tensor) -> Tensor:
            same = x.detach()[0] if x.dim() > 3 else x.detach()
            chosen = kept(same, k)
            choices[name].append((same, chosen))
            return (same * chosen).expand_as(x)

        return top_k

    with _replaced(model, {name: keep(name, k) for name, k in _top_k_sites(model).items()}):
        yield choices


@contextmanager
def slopes_between(model: nn.Module, start: Choices, stop: Choices) -> Iterator[None]:
    """Inside the block, AbsTopK returns its mean output of two runs, with the slope between them.

    Args:
        model: the model of both runs.
        start, stop: results of `recorded_choices` for the two runs.
    """

    def between(name: str) -> Edit:
        ends = iter(zip(start[name], stop[name], strict=True))

        def top_k(x: Tensor) -> Tensor:
            (a, kept_a), (b, kept_b) = next(ends)
            value: Tensor = _Slope.apply(x, a, b, kept_a, kept_b)  # type: ignore[no-untyped-call]
            return value

        return top_k

    with _replaced(model, {name: between(name) for name in _top_k_sites(model)}):
        yield


def kept(x: Tensor, k: int) -> Tensor:
    """Return (..., N) bool: the k entries of largest magnitude, ties to the lower index."""
    order = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x, dtype=torch.bool).scatter(-1, order, True)


class _Slope(torch.autograd.Function):
    """Input x (M, B, T, N) or (B, T, N); end points a and b and their kept channels (B, T, N)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, kept_a: Tensor, kept_b: Tensor
    ) -> Tensor:
        grown = b.abs() - a.abs()
        entering, growth = _by_growth(grown, kept_b & ~kept_a)
        leaving, decline = _by_growth(grown, kept_a & ~kept_b)
        largest = torch.maximum(a.abs(), b.abs()).amax(-1, keepdim=True)
        least = largest * torch.finfo(x.dtype).eps  # lower bound, against rounding
        inverse = torch.where(growth > -torch.inf, 1 / (growth - decline).maximum(least), 0)
        moved = b - a
        of_magnitude = torch.where(moved == 0, a.sign(), grown / moved)
        share = (kept_a.to(x.dtype) + kept_b.to(x.dtype)) / 2
        ctx.save_for_backward(share, (a + b) / 2, entering, leaving, inverse, of_magnitude)
        return ((a * kept_a + b * kept_b) / 2).expand_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        share, mean, entering, leaving, inverse, of_magnitude = ctx.saved_tensors
        (grad,) = grads
        gain = grad * mean
        entering, leaving = (rows.expand(*grad.shape[:-1], -1) for rows in (entering, leaving))
        jump = (gain.gather(-1, entering) - gain.gather(-1, leaving)) * inverse
        by_magnitude = torch.zeros_like(grad)
        by_magnitude.scatter_add_(-1, entering, jump).scatter_add_(-1, leaving, -jump)
        return grad * share + by_magnitude * of_magnitude, None, None, None, None


def _by_growth(grown: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's chosen channels, (..., P), those that grew most first, and their growth.

    P is the largest number chosen in a row; other rows are padded with growth minus infinity.
    """
    most = int(chosen.sum(-1).max())
    growth, channels = grown.masked_fill(~chosen, -torch.inf).topk(most, dim=-1)
    return channels, growth


def _top_k_sites(model: nn.Module) -> dict[str, int]:
    """Return k of each site with AbsTopK."""
    return {name: site.k for name, site in find_sites(model).items() if site.k is not None}


@contextmanager
def _replaced(model: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Replace AbsTopK by edits inside the block."""
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
