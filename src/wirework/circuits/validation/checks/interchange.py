"""Interchange: swap node activations at the last token between prompts with the same right answer.

If the circuit's nodes encode only the answer there, the swap leaves the loss unchanged.
Shapes: P pairs (two prompts each), n kept nodes, k of them at one site.
Source: Gao et al. 2025, App. E (values claimed equal in meaning are swapped between inputs).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.validation.checks.masked_circuit import (
    EditsOf,
    MaskedCircuit,
    mean_loss,
    passes,
)
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs


@dataclass(frozen=True, repr=False)
class Interchange(Report):
    """Task losses in nats, means over the draws.

    A loss is None if no prompt has a donor to take values from.
    """

    circuit: float | None
    """Nothing swapped, on the prompts of `same`."""
    same: float | None
    """Every node takes the value of a prompt with the same right answer."""
    mixed: float | None
    """Each node does so with probability 1/2, so that upstream nodes affect the answer too."""
    other: float | None
    """Control, which must be high: values of prompts whose right answer is this one's wrong one."""
    n_same: int
    """Prompts that have another prompt with the same right answer."""
    n_other: int
    """Prompts for which another prompt's right answer is the wrong answer."""


@torch.no_grad()
def interchange(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, n_resamples: int = 4, seed: int = 0
) -> Interchange:
    """Swap the circuit's activations at the last token between prompts with the same answer.

    Each node draws its own donor per prompt. This is a strict test: nodes that encode the answer
    only jointly fail it. Donor values come from the circuit without swaps.

    Args:
        masked_circuit: the circuit.
        batch: tokenised pairs; answers are compared by token.
        n_resamples: number of draws of donors.
        seed: of the draws.

    Raises:
        InputError: `n_resamples` below 1, or a loss that is not finite.
    """
    if n_resamples < 1:
        raise InputError(f"interchange needs at least one draw, got {n_resamples}")
    generator = torch.Generator().manual_seed(seed)
    kept, values = masked_circuit.kept, last_values(masked_circuit, batch)
    same, other = (_donors(batch, column) for column in (0, 1))
    with_same, with_other = _rows_with(same), _rows_with(other)

    def after(donors: list[Tensor], chosen: Tensor, share: float) -> float | None:
        if not len(chosen):
            return None
        losses = [
            mean_loss(
                masked_circuit.logit_diffs(
                    batch, _swap_edits(kept, values, donors, share, generator)
                )[chosen]
            )
            for _ in range(n_resamples)
        ]
        return sum(losses) / n_resamples

    return Interchange(
        circuit=mean_loss(masked_circuit.logit_diffs(batch)[with_same]) if len(with_same) else None,
        same=after(same, with_same, 1.0),
        mixed=after(same, with_same, 0.5),
        other=after(other, with_other, 1.0),
        n_same=len(with_same),
        n_other=len(with_other),
    )


@torch.no_grad()
def last_values(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> dict[str, Tensor]:
    """Return site to (2P, k): activations of the kept nodes at each prompt's last token."""
    node_values: dict[str, Tensor] = {}
    for places, part in passes(batch):
        ends = torch.arange(len(places), device=part.last_positions.device), part.last_positions
        for name, value in masked_circuit.values(part).items():
            if name not in node_values:
                node_values[name] = value.new_zeros(len(batch.last_positions), value.shape[-1])
            node_values[name][places] = value[ends]
    return node_values


def _donors(batch: TokenizedPairs, column: int) -> list[Tensor]:
    """Return for each prompt the other prompts whose right answer is its answer in `column`."""
    right = batch.answers[:, 0].tolist()
    groups: dict[int, list[int]] = {}
    for place, answer in enumerate(right):
        groups.setdefault(answer, []).append(place)
    members = {answer: torch.tensor(places) for answer, places in groups.items()}
    no_prompts = torch.empty(0, dtype=torch.int64)
    wanted = [members.get(answer, no_prompts) for answer in batch.answers[:, column].tolist()]
    return [group[group != place] for place, group in enumerate(wanted)]


def _rows_with(donors: list[Tensor]) -> Tensor:
    return torch.tensor([i for i, some in enumerate(donors) if len(some)], dtype=torch.int64)


def _swap_edits(
    kept: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    donors: list[Tensor],
    share: float,
    generator: torch.Generator,
) -> EditsOf:
    """Draw a donor for every node of every prompt; prompts without donors keep their values."""
    has = torch.tensor([len(some) > 0 for some in donors])
    taken, swapped = {}, {}
    for name, value in values.items():
        drawn = [_draw(some, place, value.shape[1], generator) for place, some in enumerate(donors)]
        taken[name] = value.gather(0, torch.stack(drawn).to(value.device))
        is_swapped = torch.rand(value.shape, generator=generator) < share
        swapped[name] = (is_swapped & has[:, None]).to(value.device)

    def edits(part: TokenizedPairs, places: Tensor) -> dict[str, Edit]:
        return {
            name: _set_values(
                channels, part.last_positions, taken[name][places], swapped[name][places]
            )
            for name, channels in kept.items()
        }

    return edits


def _draw(donors: Tensor, place: int, count: int, generator: torch.Generator) -> Tensor:
    if not len(donors):
        return torch.full((count,), place)
    return donors[torch.randint(len(donors), (count,), generator=generator)]


def _set_values(channels: Tensor, positions: Tensor, values: Tensor, where: Tensor) -> Edit:
    """Return the edit that sets channels at each `positions` token to `values` where `where`."""
    sequences = torch.arange(len(positions), device=positions.device)[:, None]

    def put(x: Tensor) -> Tensor:
        now = x[sequences, positions[:, None], channels]
        return x.index_put(
            (sequences, positions[:, None], channels), torch.where(where, values, now)
        )

    return put
