"""Initial binarisation: a threshold and two values for each node of a circuit.

Shapes: n kept nodes of all sites, P pairs (two prompts each).
Source: Gao et al. 2025, App. C.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.validation.checks.masked_circuit import MaskedCircuit, passes
from wirework.tasks import TokenizedPairs

_SHARES = (0.25, 0.5, 0.75)
"""Candidate thresholds, as shares of a node's range."""
_FLAT = 1e-6
"""A relative range below this counts as constant."""


@dataclass(frozen=True)
class BinaryThresholds:
    """Step functions that replace the kept nodes; (n,) each, by site, then channel."""

    threshold: Tensor
    low: Tensor
    """Value at or below the threshold."""
    high: Tensor
    """Value above the threshold."""


@torch.no_grad()
def best_start(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> BinaryThresholds:
    """Return the best of three thresholds for each node, with the means below and above it.

    The best threshold minimises the squared error over all prompt tokens (without padding). A node
    that is constant there, or has no value on one side, gets one value for both sides.
    """
    low = torch.full((1,), torch.inf, dtype=torch.float64, device=masked_circuit.device)
    high = -low
    for values in _prompt_values(masked_circuit, batch):
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    flat = high - low <= _FLAT * torch.maximum(high.abs(), low.abs())
    shares = torch.tensor(_SHARES, dtype=low.dtype, device=low.device)[:, None]
    thresholds = torch.where(flat, torch.inf, low + shares * (high - low))  # (3, n)
    count, means = _counts_and_means(masked_circuit, batch, thresholds)
    # Squared error = total sum of squares (same for all thresholds) - the part explained by means.
    best = (count * means.square()).sum(0).argmax(0)  # (n,)
    below, above = means.gather(1, best.expand(2, 1, -1))[:, 0]
    dtype = masked_circuit.transformer.embed.weight.dtype
    return BinaryThresholds(
        threshold=thresholds.gather(0, best[None])[0].to(dtype),
        low=below.to(dtype),
        high=torch.where(flat, below, above).to(dtype),
    )


def _counts_and_means(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    """Return token counts below and above each threshold, and their means, each (2, 3, n)."""
    count, total = (thresholds.new_zeros(2, *thresholds.shape) for _ in range(2))
    for values in _prompt_values(masked_circuit, batch):
        for i, threshold in enumerate(thresholds):
            above = values > threshold
            for side, chosen in enumerate((~above, above)):
                count[side, i] += chosen.sum(0)
                total[side, i] += (values * chosen).sum(0)
    return count, total / count.clamp(min=1)


def _prompt_values(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> Iterator[Tensor]:
    """Yield (tokens, n) float64 per pass: activations of the circuit's nodes at prompt tokens."""
    for _, part in passes(batch):
        inside = (
            torch.arange(part.tokens.shape[1], device=part.last_positions.device)
            <= part.last_positions[:, None]
        )
        yield torch.cat(list(masked_circuit.values(part).values()), -1)[inside].double()
