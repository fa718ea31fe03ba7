"""What is outside a circuit takes values from the training text instead of its mean.

Mean ablation puts removed nodes at values that may never occur together; here they take values
that do occur. Values are those after AbsTopK, as sites hand them on.
Shapes: N nodes of one site, S tokens in a bank, B sequences, T tokens.
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
    """Task losses in nats of a circuit, one for each draw of what is outside."""

    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the draws."""
        return sum(self.losses) / len(self.losses)

    @property
    def worst(self) -> float:
        """The highest."""
        return max(self.losses)


def resample_ablation(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    values: ActivationCache,
    n_resamples: int = 4,
    seed: int = 0,
) -> Draws:
    """Return the loss when removed nodes take, at each token, their value at a random token.

    All channels of a site come from one token of the bank; sites, tokens and rows draw apart.

    Args:
        masked_circuit: the circuit; what its own ablation rests at no longer matters where a node is
            removed.
        batch: a task.
        values: from `activation_cache`.
        n_resamples: how many times.
        seed: of the draws.

    Raises:
        InputError: no draw, a bank of another model, or a loss that is no number.

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
    """Return the loss when removed nodes rest at one value of the data for all tokens and rows.

    Each draw takes one token of the bank a site. The mean over draws is the loss under
    *stochastic* ablation, the worst one that under *adversarial* ablation.

    Args:
        masked_circuit: the circuit.
        batch: a task.
        values: from `activation_cache`.
        n_resamples: how many times; more can only raise the worst.
        seed: of the draws; the first ones do not depend on how many there are.

    Raises:
        InputError: no draw, a bank of another model, or a loss that is no number.
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
    for name, width in masked_circuit.space.widths.items():
        shape = tuple(values[name].shape) if name in values else None
        if shape is None or shape[1:] != (width,):
            raise InputError(f"a bank of {width} channels was wanted at {name}, got {shape}")
