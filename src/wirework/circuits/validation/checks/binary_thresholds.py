"""Two values for each node of a circuit: the step function, its smooth form, and initial values.

Shapes: n kept nodes of all sites, k of one site, C candidate thresholds, P pairs (two prompts
each).
Source: Gao et al. 2025, App. C.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import (
    MaskedCircuit,
    passes,
)
from wirework.nn import Edit
from wirework.tasks import TokenizedPairs

_SHARES = (0.25, 0.5, 0.75)
"""Candidate thresholds, as shares of a node's range."""
_FLAT = 1e-6
"""A relative range below this counts as constant."""
_LEAST_DISTANCE = 1e-12
"""Distance of two values below which they count as equal, so that nothing is divided by 0."""
_SATURATED = 20.0
"""Argument from which tanh is 1 in all dtypes."""


@dataclass(frozen=True)
class BinaryValues:
    """The two values of each kept node; (n,) each, by site, then channel.

    Their order does not matter: a node takes the lesser one below the middle of both.
    """

    low: Tensor
    high: Tensor

    @property
    def threshold(self) -> Tensor:
        """(n,), the middle of both values."""
        return (self.low + self.high) / 2


def binarisation(x: Tensor, low: Tensor, high: Tensor, t: float) -> Tensor:
    """Return psi_t of activations: the identity at t = 1, a step at t = 0, a mixture in between.

    psi_0 is `low` where x < (low + high) / 2, else `high`. In between it is t x + (1 - t) s(x),
    where s is a sigmoid of temperature t around the middle, scaled so that s(low) = low and
    s(high) = high. The temperature is a share of the distance of both values, so that nodes of all
    scales turn into steps together; the paper does not give its unit.

    Args:
        x: (..., k) activations.
        low: (k,) the lesser value; it may be the greater one, which changes nothing.
        high: (k,) the other value.
        t: 0 to 1.

    Returns:
        (..., k), dtype of `x`.

    Source: Gao et al. 2025, App. C.
    """
    low, high = torch.minimum(low, high), torch.maximum(low, high)
    middle, distance = (low + high) / 2, (high - low).clamp(min=_LEAST_DISTANCE)
    if t == 0:
        return torch.where(x < middle, low, high).to(x.dtype)
    # sigmoid(y / t) - 1/2 = tanh(y / 2t) / 2
    at_values = math.tanh(1 / (4 * t))
    # Cut where the sigmoid is flat: for a node with (almost) one value, gradients would overflow.
    exponent = ((x - middle) / distance / (2 * t)).clamp(-_SATURATED, _SATURATED)
    step = middle + distance / (2 * at_values) * torch.tanh(exponent)
    return torch.lerp(step, x, t).to(x.dtype)


def binarising_edits(kept: Mapping[str, Tensor], values: BinaryValues, t: float) -> dict[str, Edit]:
    """Return edits that apply psi_t to every kept node, for (..., k) at each site."""

    def edit_of(low: Tensor, high: Tensor) -> Edit:
        return lambda x: binarisation(x, low, high, t)

    sizes = [len(channels) for channels in kept.values()]
    parts = zip(torch.split(values.low, sizes), torch.split(values.high, sizes), strict=True)
    return {name: edit_of(*both) for name, both in zip(kept, parts, strict=True)}


@torch.no_grad()
def best_start(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> BinaryValues:
    """Return the initial values of each node: the candidate with the lowest task loss.

    A candidate is the means of a node's activations below and above a threshold at 1/4, 1/2 or 3/4
    of its range over all prompt tokens (without padding). Nodes are taken one by one in execution
    order, with earlier nodes binarised already. A constant node gets one value for both sides.

    Args:
        masked_circuit: the circuit.
        batch: pairs on which activations are observed and task losses are compared.

    Raises:
        InputError: a task loss is no number.

    Source: Gao et al. 2025, App. C.
    """
    low, high = _candidates(masked_circuit, batch)  # (C, n) each
    run, parts = masked_circuit.runner(), [part for _, part in passes(batch)]
    chosen = BinaryValues(low[0].clone(), high[0].clone())
    edits: dict[str, Edit] = {}
    first = 0
    for name, channels in masked_circuit.kept.items():
        for node in range(first, first + len(channels)):
            losses = []
            for candidate in range(len(_SHARES)) if low[0, node] != high[0, node] else ():
                chosen.low[node], chosen.high[node] = low[candidate, node], high[candidate, node]
                edits[name] = _of_first(chosen, first, node + 1)
                diffs = torch.cat([run(part, edits) for part in parts])
                losses.append(masked_circuit.loss_of(diffs))
            best = losses.index(min(losses)) if losses else 0
            chosen.low[node], chosen.high[node] = low[best, node], high[best, node]
        edits[name] = _of_first(chosen, first, first := first + len(channels))
    return chosen


def _of_first(values: BinaryValues, first: int, end: int) -> Edit:
    """Return the edit that binarises the first kept nodes of a site, for (..., k).

    Args:
        values: values of all kept nodes.
        first: number of the site's first node among them.
        end: number after the last node that is binarised.
    """

    def edit(x: Tensor) -> Tensor:
        count = end - first
        done = binarisation(x[..., :count], values.low[first:end], values.high[first:end], 0.0)
        return torch.cat([done, x[..., count:]], -1)

    return edit


def _candidates(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> tuple[Tensor, Tensor]:
    """Return the means below and above each candidate threshold, (C, n) each, in model dtype."""
    low = torch.full((1,), torch.inf, dtype=torch.float64, device=masked_circuit.device)
    high = -low
    for values in _prompt_values(masked_circuit, batch):
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    flat = high - low <= _FLAT * torch.maximum(high.abs(), low.abs())
    shares = torch.tensor(_SHARES, dtype=low.dtype, device=low.device)[:, None]
    thresholds = torch.where(flat, torch.inf, low + shares * (high - low))  # (C, n)
    below, above = _means(masked_circuit, batch, thresholds)
    dtype = masked_circuit.transformer.embed.weight.dtype
    return below.to(dtype), torch.where(flat, below, above).to(dtype)


def _means(masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: Tensor) -> Tensor:
    """Return the mean activation below and above each threshold, (2, C, n)."""
    count, total = (thresholds.new_zeros(2, *thresholds.shape) for _ in range(2))
    for values in _prompt_values(masked_circuit, batch):
        for i, threshold in enumerate(thresholds):
            above = values > threshold
            for side, chosen in enumerate((~above, above)):
                count[side, i] += chosen.sum(0)
                total[side, i] += (values * chosen).sum(0)
    return total / count.clamp(min=1)


def _prompt_values(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> Iterator[Tensor]:
    """Yield (tokens, n) float64 per pass: activations of the circuit's nodes at prompt tokens."""
    for _, part in passes(batch):
        inside = (
            torch.arange(part.tokens.shape[1], device=part.last_positions.device)
            <= part.last_positions[:, None]
        )
        yield torch.cat(list(masked_circuit.values(part).values()), -1)[inside].double()
