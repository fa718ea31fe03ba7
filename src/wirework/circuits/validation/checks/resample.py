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
from wirework.circuits.masking.masked_circuit import MaskedCircuit
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
    _check(masked_circuit, values, n_resamples)
    generator = torch.Generator().manual_seed(seed)

    def drawing(site: Tensor) -> Callable[[Tensor], Tensor]:
        def draw(x: Tensor) -> Tensor:
            return site[torch.randint(len(site), x.shape[:2], generator=generator).to(site.device)]

        return draw

    edits = {
        name: _replacing(removed, drawing(values[name]))
        for name, removed in _removed(masked_circuit).items()
    }
    return Draws(tuple(masked_circuit.loss(batch, edits) for _ in range(n_resamples)))


def constant_resample_ablation(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    values: ActivationCache,
    n_resamples: int = 16,
    seed: int = 0,
) -> Draws:
    """Return the losses when removed nodes take one constant resampled value for all prompts.

    Each resample draws one cached token per site and uses it at all positions. The mean over
    resamples is the loss under *stochastic* ablation, the highest one is called *adversarial* in
    reports. `adversarial_ablation` looks for worse values.

    Args:
        masked_circuit: the circuit.
        batch: tokenised pairs of a task.
        values: activation cache, from `activation_cache`.
        n_resamples: number of resamples; more can only raise the highest loss.
        seed: seed of the resamples; the first ones do not depend on their number.

    Raises:
        InputError: `n_resamples` below 1, a cache of another model, or a loss that is not finite.
    """
    removed = _removed(masked_circuit)
    losses = []
    for draw in constant_draws(masked_circuit, values, n_resamples, seed):
        by_site = masked_circuit.space.split(draw)
        edits = {
            name: _replacing(nodes, by_site[name].expand_as) for name, nodes in removed.items()
        }
        losses.append(masked_circuit.loss(batch, edits))
    return Draws(tuple(losses))


def constant_draws(
    masked_circuit: MaskedCircuit, values: ActivationCache, n_draws: int, seed: int = 0
) -> Tensor:
    """Return the values of constant resamples: one cached token per draw and site.

    Args:
        masked_circuit: the circuit.
        values: activation cache, from `activation_cache`.
        n_draws: number of draws.
        seed: seed of the draws; the first ones do not depend on their number.

    Returns:
        (n_draws, N over all sites); 0 at sites of which all nodes are kept.

    Raises:
        InputError: `n_draws` below 1, or a cache of another model.
    """
    _check(masked_circuit, values, n_draws)
    generator, removed = torch.Generator().manual_seed(seed), _removed(masked_circuit)
    draws = []
    for _ in range(n_draws):
        tokens = {
            name: int(torch.randint(len(values[name]), (), generator=generator)) for name in removed
        }
        drawn = {
            name: cached[tokens[name]] if name in removed else torch.zeros_like(cached[0])
            for name, cached in values.items()
        }
        draws.append(masked_circuit.space.join(drawn))
    return torch.stack(draws)


def _check(masked_circuit: MaskedCircuit, values: ActivationCache, n_draws: int) -> None:
    """Refuse an activation cache of another model, and draws that are fewer than one."""
    if n_draws < 1:
        raise InputError(f"resampling needs at least one draw, got {n_draws}")
    for name, width in masked_circuit.space.widths.items():
        shape = tuple(values[name].shape) if name in values else None
        if shape is None or shape[1:] != (width,):
            raise InputError(
                f"expected an activation cache of {width} channels at {name}, got {shape}"
            )


def _removed(masked_circuit: MaskedCircuit) -> dict[str, Tensor]:
    """Return site to (N,) bool, its removed nodes; only sites with removed nodes."""
    parts = masked_circuit.space.split(masked_circuit.gates.to(masked_circuit.device) == 0)
    return {name: removed for name, removed in parts.items() if removed.any()}


def _replacing(removed: Tensor, draw: Callable[[Tensor], Tensor]) -> Edit:
    return lambda x: torch.where(removed, draw(x), x)
