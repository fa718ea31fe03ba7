"""Interchange: swap node activations at the last token between prompts with the same right answer.

If the circuit's nodes encode only the answer there, the swap leaves the loss unchanged.
Shapes: P pairs (two prompts each), n kept nodes, k of them at one site.
Source: Gao et al. 2025, App. E (values claimed equal in meaning are swapped between inputs).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import (
    EditsOf,
    MaskedCircuit,
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
        seed: seed of the draws.

    Raises:
        InputError: `n_resamples` below 1, or a loss that is not finite.
    """
    if n_resamples < 1:
        raise InputError(f"interchange needs at least one draw, got {n_resamples}")
    generator = torch.Generator().manual_seed(seed)
    kept, values = masked_circuit.kept, last_values(masked_circuit, batch)
    same, other = (_donors(batch, column) for column in (0, 1))
    with_same, with_other = _rows_with(same), _rows_with(other)

    def swapped_loss(donors: list[Tensor], rows: Tensor, share: float) -> float | None:
        if not len(rows):
            return None
        losses = []
        for _ in range(n_resamples):
            edits = _swap_edits(kept, values, donors, share, generator)
            losses.append(masked_circuit.loss_of(masked_circuit.logit_diffs(batch, edits)[rows]))
        return sum(losses) / n_resamples

    return Interchange(
        circuit=masked_circuit.loss_of(masked_circuit.logit_diffs(batch)[with_same])
        if len(with_same)
        else None,
        same=swapped_loss(same, with_same, 1.0),
        mixed=swapped_loss(same, with_same, 0.5),
        other=swapped_loss(other, with_other, 1.0),
        n_same=len(with_same),
        n_other=len(with_other),
    )


@torch.no_grad()
def last_values(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> dict[str, Tensor]:
    """Return site to (2P, k): activations of the kept nodes at each prompt's last token."""
    node_values: dict[str, Tensor] = {}
    for rows, part in passes(batch):
        prompts = torch.arange(len(rows), device=part.last_positions.device)
        for name, value in masked_circuit.values(part).items():
            if name not in node_values:
                node_values[name] = value.new_zeros(len(batch.last_positions), value.shape[-1])
            node_values[name][rows] = value[prompts, part.last_positions]
    return node_values


def _donors(batch: TokenizedPairs, column: int) -> list[Tensor]:
    """Return for each prompt the other prompts whose right answer is its answer in `column`."""
    rows_of_answer: dict[int, list[int]] = {}
    for row, right_answer in enumerate(batch.answers[:, 0].tolist()):
        rows_of_answer.setdefault(right_answer, []).append(row)
    by_answer = {answer: torch.tensor(rows) for answer, rows in rows_of_answer.items()}
    no_rows = torch.empty(0, dtype=torch.int64)
    donors = [by_answer.get(answer, no_rows) for answer in batch.answers[:, column].tolist()]
    return [rows[rows != row] for row, rows in enumerate(donors)]


def _rows_with(donors: list[Tensor]) -> Tensor:
    """Return the indices of the prompts that have a donor, int64."""
    rows = [row for row, of_row in enumerate(donors) if len(of_row)]
    return torch.tensor(rows, dtype=torch.int64)


def _swap_edits(
    kept: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    donors: list[Tensor],
    share: float,
    generator: torch.Generator,
) -> EditsOf:
    """Draw a donor for every node of every prompt, and return the edits that take their values.

    Args:
        kept: site to channels (k,) of the circuit's nodes.
        values: site to (2P, k), their values at the last token of each prompt.
        donors: for each prompt, the prompts it may take values from; without any, it keeps its own.
        share: probability with which a node takes the value of its donor.
        generator: source of the draws.
    """
    has_donor = torch.tensor([len(of_row) > 0 for of_row in donors])
    donor_values, is_swapped = {}, {}
    for name, value in values.items():
        drawn = [_draw(of_row, row, value.shape[1], generator) for row, of_row in enumerate(donors)]
        donor_values[name] = value.gather(0, torch.stack(drawn).to(value.device))
        is_drawn = torch.rand(value.shape, generator=generator) < share
        is_swapped[name] = (is_drawn & has_donor[:, None]).to(value.device)

    def edits(part: TokenizedPairs, rows: Tensor) -> dict[str, Edit]:
        return {
            name: _set_values(
                channels, part.last_positions, donor_values[name][rows], is_swapped[name][rows]
            )
            for name, channels in kept.items()
        }

    return edits


def _draw(donors: Tensor, row: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw the donors of `count` nodes of one prompt; without donors it is its own."""
    if not len(donors):
        return torch.full((count,), row)
    return donors[torch.randint(len(donors), (count,), generator=generator)]


def _set_values(channels: Tensor, positions: Tensor, values: Tensor, is_set: Tensor) -> Edit:
    """Return the edit that replaces activations at one token of each sequence.

    Args:
        channels: (k,) channels of the site.
        positions: (B,) position of the token in each sequence.
        values: (B, k) new activations.
        is_set: (B, k) bool, which activations are replaced.
    """
    sequences = torch.arange(len(positions), device=positions.device)[:, None]

    def put(x: Tensor) -> Tensor:
        current = x[sequences, positions[:, None], channels]
        new = torch.where(is_set, values, current)
        return x.index_put((sequences, positions[:, None], channels), new)

    return put
