"""Minimality: whether no single node or edge can be removed while the target is met.

Shapes: R masks, U units (nodes, or edges), u of them in the circuit, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import Gated, finite
from wirework.errors import InputError
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

_MASKS = 256
"""Masks per call, so that memory does not grow with u x U."""


@dataclass(frozen=True, repr=False)
class Minimality(Report):
    """Losses of the circuit with one unit removed."""

    circuit: float
    """Task loss in nats of the complete circuit, highest over ablation modes."""
    losses: tuple[float, ...]
    """(u,) task loss with one unit removed, in mask order, highest over ablation modes."""
    n_removable: int
    """Number of units that can each be removed alone while the target is met."""
    minimal: bool | None
    """Whether `n_removable` is 0; None if the circuit itself misses the target."""


def minimality(
    ablation_modes: Sequence[Gated], gates: Tensor, batch: TokenizedPairs, target: float
) -> Minimality:
    """Measure the loss with each unit of a circuit removed alone.

    Args:
        ablation_modes: the model with masks, once per ablation mode.
        gates: (U,) the circuit, 1 where a unit is kept.
        batch: tokenised pairs of a task.
        target: task loss in nats, which the circuit should reach on these pairs.

    Raises:
        InputError: a loss is no number, or the circuit is empty.
    """
    if not gates.any():
        raise InputError("an empty circuit has no node to remove")

    def highest(masks: Tensor) -> list[float]:
        losses: Tensor = torch.stack([mode.losses(masks, batch) for mode in ablation_modes]).amax(0)
        return losses.tolist()

    circuit_loss = finite(highest(gates[None])[0], "the circuit's loss")
    losses = [
        finite(loss, "a loss with one unit removed")
        for part in torch.split(gates.nonzero().flatten(), _MASKS)
        for loss in highest(without_each(gates, part))
    ]
    n_removable = sum(loss <= target for loss in losses)
    is_minimal = n_removable == 0 if circuit_loss <= target else None
    return Minimality(circuit_loss, tuple(losses), n_removable, is_minimal)


def without_each(gates: Tensor, units: Tensor) -> Tensor:
    """Return masks (len(units), U), each the circuit without one of `units` (int64)."""
    return gates.repeat(len(units), 1).scatter_(1, units[:, None].to(gates.device), 0)


def effects(gated: Gated, before: Tensor, after: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the effect of changing mask `before` to each mask `after`, (R,).

    Args:
        gated: a model with masks.
        before: (R, U), or (1, U) for all.
        after: (R, U).
        batch: tokenised pairs of a task.

    Returns:
        Mean absolute change of the logit difference over prompts.
    """
    with torch.no_grad():
        moved = gated.all_logit_diffs(after, batch) - gated.all_logit_diffs(before, batch)
    return moved.double().abs().mean(1)
