"""Resample ablation: nodes outside the circuit take activations of the training text.

Under mean ablation, removed nodes have values that may never occur together; resampled values do
occur. Activations are taken after AbsTopK.
Shapes: N nodes of one site, S tokens in the activation cache, B sequences, T tokens.
Source: Gao et al. 2025, App. E (resampled values from the pretraining distribution).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.validation.checks.masked_circuit import MaskedCircuit
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.tasks import TokenizedPairs


@dataclass(frozen=True)
class Draws:
    """Task losses in nats of a circuit, one per resample of the nodes outside it."""

    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean loss over the resamples."""
        return sum(self.losses) / len(self.losses)

    @property
    def worst(self) -> float:
        """Highest loss over the resamples."""
        return max(self.losses)


def resample_ablation(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    values: ActivationCache,
    n_resamples: int = 4,
    seed: int = 0,
) -> Draws:
    """Return the losses when removed nodes take their activation at a random token, per position.

    All channels of a site come from the same cached token; sites, positions and prompts are drawn
    independently.

    Args:
        masked_circuit: the circuit; its own ablation values are overwritten.
        batch: tokenised pairs of a task.
        values: activation cache, from `activation_cache`.
        n_resamples: number of resamples.
        seed: seed of the resamples.

    Raises:
        InputError: `n_resamples` below 1, a cache of another model, or a loss that is not finite.

    Source: Gao et al. 2025, App. E.
    """

    def per_token(site: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        def draw(x: Tensor) -> Tensor:
            return site[torch.randint(len(site), x.shape[:2], generator=generator).to(site.device)]

        return draw

    return _losses(masked_circuit, batch, values, n_resamples, seed, per_token)


def constant_resample_ablation(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    values: ActivationCache,
    n_resamples: int = 16,
    seed: int = 0,
) -> Draws:
    """Return the losses when removed nodes take one constant resampled value for all prompts.

    Each resample draws one cached token per site and uses it at all positions. The mean over
    resamples is the loss under *stochastic* ablation, the highest that under *adversarial*
    ablation.

    Args:
        masked_circuit: the circuit.
        batch: tokenised pairs of a task.
        values: activation cache, from `activation_cache`.
        n_resamples: number of resamples; more can only raise the highest loss.
        seed: seed of the resamples; the first ones do not depend on their number.

    Raises:
        InputError: `n_resamples` below 1, a cache of another model, or a loss that is not finite.
    """

    def per_draw(site: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        value = site[int(torch.randint(len(site), (), generator=generator))]
        return lambda _: value

    return _losses(masked_circuit, batch, values, n_resamples, seed, per_draw)


def _losses(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    values: ActivationCache,
    n_resamples: int,
    seed: int,
    drawing: Callable[[Tensor, torch.Generator], Callable[[Tensor], Tensor]],
) -> Draws:
    """Return the losses over the resamples.

    Args:
        masked_circuit: the circuit.
        batch: tokenised pairs of a task.
        values: activation cache.
        n_resamples: number of resamples.
        seed: seed of the resamples.
        drawing: maps the cached activations (S, N) of a site and a generator to a function that
            returns replacement values for activations (B, T, N).
    """
    if n_resamples < 1:
        raise InputError(f"resampling needs at least one draw, got {n_resamples}")
    _check(masked_circuit, values)
    generator = torch.Generator().manual_seed(seed)
    parts = masked_circuit.space.split(masked_circuit.gates.to(masked_circuit.device) != 0)
    losses = []
    for _ in range(n_resamples):
        edits = {
            name: _replacing(~kept, drawing(values[name], generator))
            for name, kept in parts.items()
            if not kept.all()
        }
        losses.append(masked_circuit.loss(batch, edits))
    return Draws(tuple(losses))


def _replacing(removed: Tensor, draw: Callable[[Tensor], Tensor]) -> Edit:
    return lambda x: torch.where(removed, draw(x), x)


def _check(masked_circuit: MaskedCircuit, values: ActivationCache) -> None:
    """Refuse an activation cache of another model."""
    for name, width in masked_circuit.space.widths.items():
        shape = tuple(values[name].shape) if name in values else None
        if shape is None or shape[1:] != (width,):
            raise InputError(
                f"expected an activation cache of {width} channels at {name}, got {shape}"
            )
