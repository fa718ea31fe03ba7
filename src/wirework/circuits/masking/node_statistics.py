"""Mean of every node over text, its standard error, and the spread of the activation.

Tokens of a window are correlated, so the standard error is that of windows, not of tokens.
Shapes: B sequences, T tokens, N nodes at one site, W windows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.summaries import Report

_FLAT = 1e-3
"""Standard deviation as a share of the mean below which a channel counts as constant: the rounding
of float32 squares gives as much."""


def ablated_sites(transformer: Transformer) -> list[str]:
    """Return the sites whose means are needed: all node sites and the head outputs (`attn.y`).

    An edge from a v node reads the output of its head, so its ablation needs the mean of that
    output.
    """
    outputs = [f"{layer}.attn.y" for layer in range(transformer.config.n_layer)]
    return [*transformer.node_sites, *outputs]


@dataclass(frozen=True)
class NodeSums:
    """Sums over windows of text, from which means and their standard errors follow."""

    sites: Mapping[str, Tensor]
    """Site to (3, N) float64: sum of the activations, sum of the squared sums of the windows, sum
    of the squared activations; of windows of several lengths, see `weighted`."""
    weighted: Mapping[str, Tensor]
    """Site to (N,) float64: sum over windows of their number of tokens times their sum."""
    n_tokens: int
    n_windows: int
    squared_lengths: int
    """Sum over windows of their squared number of tokens."""

    def __add__(self, other: "NodeSums") -> "NodeSums":
        return NodeSums(
            {site: part + other.sites[site] for site, part in self.sites.items()},
            {site: part + other.weighted[site] for site, part in self.weighted.items()},
            self.n_tokens + other.n_tokens,
            self.n_windows + other.n_windows,
            self.squared_lengths + other.squared_lengths,
        )

    def means(self) -> dict[str, Tensor]:
        """Return site to (N,) float32, the mean over tokens."""
        return {site: (total / self.n_tokens).float() for site, (total, *_) in self.sites.items()}

    def errors(self) -> dict[str, Tensor] | None:
        """Return site to (N,) float32, the standard error of the mean; None for a single window.

        For windows of equal length it is the standard deviation of the windows' means, divided by
        the square root of their number.
        """
        if self.n_windows < 2:
            return None
        of_sites = {}
        for site, (total, squared_windows, _) in self.sites.items():
            mean = total / self.n_tokens
            residuals = (
                squared_windows - 2 * mean * self.weighted[site] + mean**2 * self.squared_lengths
            )
            variance = residuals.clamp(min=0) * self.n_windows / (self.n_windows - 1)
            of_sites[site] = (variance.sqrt() / self.n_tokens).float()
        return of_sites

    def deviations(self) -> dict[str, Tensor]:
        """Return site to (N,) float32, the standard deviation over tokens; 0 if it is constant."""
        of_sites = {}
        for site, (total, _, squares) in self.sites.items():
            mean = total / self.n_tokens
            deviation = (squares / self.n_tokens - mean**2).clamp(min=0).sqrt()
            of_sites[site] = torch.where(deviation > _FLAT * mean.abs(), deviation, 0).float()
        return of_sites


@torch.no_grad()
def node_sums(transformer: Transformer, batches: Iterable[Tensor]) -> NodeSums:
    """Sum the activations of every node and head output over all tokens of the batches.

    Args:
        transformer: the model.
        batches: each (B, T) int64, B windows.

    Returns:
        The sums. Tokens of a window are summed in the model's dtype, windows in float64.

    Raises:
        InputError: no batch at all.
    """
    total: NodeSums | None = None
    device = transformer.embed.weight.device
    for tokens in batches:
        with transformer.recorded(ablated_sites(transformer)) as values:
            transformer.state(tokens.to(device))
        sites, weighted = {}, {}
        for name, value in values.items():
            windows = value.sum(1)  # 5 times as fast as float64 for tokens too
            activations = windows.sum(0, dtype=torch.float64)
            squares = value.square().sum(1).sum(0, dtype=torch.float64)
            sites[name] = torch.stack([activations, windows.double().square().sum(0), squares])
            weighted[name] = tokens.shape[1] * activations
        n_windows, length = tokens.shape
        sums = NodeSums(sites, weighted, tokens.numel(), n_windows, n_windows * length**2)
        total = sums if total is None else total + sums
    if total is None or not total.n_tokens:
        raise InputError("means need at least one batch of training tokens")
    return total


def node_means(transformer: Transformer, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean of every node and head output over all tokens of the batches.

    Args:
        transformer: the model.
        batches: each (B, T) int64.

    Returns:
        Site to (N,) float32. Tokens of a sequence are summed in the model's dtype, sequences in
        float64.

    Raises:
        InputError: no batch at all.

    Source: Gao et al. 2025, sec. 2.2 (mean ablation).
    """
    return node_sums(transformer, batches).means()


@dataclass(frozen=True, repr=False)
class MeansError(Report):
    """Standard errors of means, as shares of the standard deviations of the activations."""

    median: float
    """Median over channels."""
    largest: float
    """Largest over channels."""
    n_channels: int
    """Channels that vary; the mean of the others has no error."""


def means_error(
    errors: Mapping[str, Tensor], deviations: Mapping[str, Tensor]
) -> MeansError | None:
    """Return the median and largest relative standard error over all channels that vary.

    Args:
        errors: site to (N,), standard errors of the means.
        deviations: site to (N,), standard deviations of the activations; 0 where constant.

    Returns:
        None if no channel varies.
    """
    deviation = torch.cat([deviations[site].double() for site in errors])
    relative = (torch.cat([part.double() for part in errors.values()]) / deviation)[deviation > 0]
    if not len(relative):
        return None
    return MeansError(float(relative.median()), float(relative.max()), len(relative))
