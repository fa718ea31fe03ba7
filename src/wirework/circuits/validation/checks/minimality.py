"""Whether a circuit is minimal: no single node, or edge, can go within the target.

Shapes: R masks, U units (nodes, or edges), u of them in the circuit, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.validation.checks.masked_circuit import Gated, finite
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs

_MASKS = 256  # at once, so that memory does not grow with u times U


@dataclass(frozen=True)
class Minimality:
    """What the loss becomes when one unit goes."""

    circuit: float
    """Task loss in nats of the circuit whole, the highest of all ways to freeze."""
    losses: tuple[float, ...]
    """(u,) with one unit gone, units in the order of the mask; again the highest."""
    n_removable: int
    """How many units can go alone within the target."""
    minimal: bool | None
    """Whether that is none; None for a circuit that does not reach the target itself."""


def minimality(
    ablation_modes: Sequence[Gated], gates: Tensor, batch: TokenizedPairs, target: float
) -> Minimality:
    """Remove each unit of a circuit alone.

    Args:
        ablation_modes: the model under masks, once for each way of ablating removed nodes.
        gates: (U,) the circuit, 1 where a unit is kept.
        batch: a task.
        target: task loss in nats, reached on these rows: above it nothing can be said.

    Raises:
        InputError: a loss is no number, or the circuit is empty.
    """
    if not gates.any():
        raise InputError("nothing can go from a circuit without nodes")

    def highest(masks: Tensor) -> list[float]:
        losses: Tensor = torch.stack([mode.losses(masks, batch) for mode in ablation_modes]).amax(0)
        return losses.tolist()

    own = finite(highest(gates[None])[0], "the circuit's loss")
    losses = [
        finite(loss, "a loss with one unit gone")
        for part in torch.split(gates.nonzero().flatten(), _MASKS)
        for loss in highest(without_each(gates, part))
    ]
    removable = sum(loss <= target for loss in losses)
    return Minimality(own, tuple(losses), removable, removable == 0 if own <= target else None)


def without_each(gates: Tensor, units: Tensor) -> Tensor:
    """Return masks (len(units), U), each the circuit without one of `units` (int64)."""
    return gates.repeat(len(units), 1).scatter_(1, units[:, None].to(gates.device), 0)


def effects(gated: Gated, before: Tensor, after: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return how far each mask `after` (R, U) moves the rows' scores from mask `before`, (R,).

    Args:
        gated: a model under masks.
        before: (R, U), or (1, U) for all.
        after: (R, U).
        batch: a task.

    Returns:
        Mean over rows of the absolute change of right minus wrong logit.
    """
    with torch.no_grad():
        moved = gated.all_differences(after, batch) - gated.all_differences(before, batch)
    return moved.double().abs().mean(1)
