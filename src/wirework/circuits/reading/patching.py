"""Patching experiments on the nodes of a circuit: swap, fix or ablate them, and see what changes.

A swap replaces the values of some nodes at some tokens of a prompt by those that they have in
another prompt. With the other prompt of the pair the answer must flip if the nodes carry what
tells the contexts apart; with a prompt that has the same answers it must not.
Shapes: P pairs (two prompts each), T tokens, k nodes of a site, j of them chosen.
Source: Vig et al. 2020; Geiger et al. 2021 (interchange interventions).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import moved
from wirework.circuits.reading.places import Place, Recorded
from wirework.circuits.validation.checks.masked_circuit import EditsOf, MaskedCircuit
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

KeptNodes = Mapping[str, Tensor]
"""Site to (j,) int64, some nodes as indices into the kept nodes of that site."""

NO_NODES: KeptNodes = MappingProxyType({})


@dataclass(frozen=True, repr=False)
class Swap(Report):
    """What a swap of some nodes did to the circuit's answers."""

    place: Place
    """Tokens at which the nodes took other values."""
    n_prompts: int
    """Prompts that the circuit answers rightly without the swap; the shares are of these."""
    flipped: float
    """Share of them with the wrong answer after a swap with the other prompt of the pair."""
    moved: float
    """Change of the logit difference as a share of that between the two prompts of a pair: 0 is no
    effect, 1 is as if the whole prompt were swapped."""
    flipped_by_same: float | None
    """Control: the share with values of another prompt that has the same answers. None if no two
    pairs have the same answers."""
    moved_by_same: float | None
    """Control: the mean magnitude of the change with these values, as such a share."""


@dataclass(frozen=True)
class Patcher:
    """A circuit, and its values on the pairs of the experiments."""

    masked_circuit: MaskedCircuit
    recorded: Recorded
    logit_diffs: Tensor
    """(2P,) logit differences of the circuit, nothing patched."""
    means: Mapping[str, Tensor]
    """Site to (width,), the values of ablated nodes: means over text."""
    averages: Mapping[str, Tensor]
    """Site to (width,), the values of fixed nodes: averages over the tokens of other pairs."""

    @classmethod
    def of(
        cls,
        masked_circuit: MaskedCircuit,
        batch: TokenizedPairs,
        means: Mapping[str, Tensor],
        others: Recorded,
    ) -> "Patcher":
        """Record a circuit on the pairs of the experiments.

        Args:
            masked_circuit: the circuit.
            batch: held-out pairs.
            means: site to (width,), the values of ablated nodes.
            others: the circuit's values on pairs of which the averages are taken.

        Raises:
            InputError: the circuit answers wrongly on average.
        """
        means = moved(means, masked_circuit.transformer)
        averages = {
            site: means[site].index_copy(0, channels, others.averages(site))
            for site, channels in others.channels.items()
        }
        recorded = Recorded.of(masked_circuit, batch)
        logit_diffs = masked_circuit.logit_diffs(batch)
        if not logit_diffs.mean() > 0:  # also true for NaN
            raise InputError(
                f"the circuit's mean logit difference is {float(logit_diffs.mean()):.3g}: it does "
                "not do the task, so that there is nothing to explain"
            )
        return cls(masked_circuit, recorded, logit_diffs, means, averages)

    def loss(self) -> float:
        """Return the task loss in nats, nothing patched."""
        return self.masked_circuit.loss_of(self.logit_diffs)

    def swap(self, nodes: KeptNodes, place: Place) -> Swap:
        """Swap nodes at a place with the other prompt of the pair, and with the control's prompt.

        Args:
            nodes: the nodes.
            place: the tokens of both prompts; if one has more of them, its last ones take the
                last value of the other's.
        """
        batch, before = self.recorded.batch, self.logit_diffs
        partner = torch.arange(len(before), device=before.device) ^ 1
        right, whole = before > 0, before + before[partner]

        def after(donors: Tensor) -> Tensor:
            edits = self._taking(nodes, self.recorded.places[place], donors, place)
            return self.masked_circuit.logit_diffs(batch, edits)

        swapped = after(partner)
        flipped_by_same = moved_by_same = None
        same = _same_answers(batch)
        has_same = same >= 0
        if bool((has_same & right).any()):
            by_same = after(same.clamp(min=0))
            flipped_by_same = _share((by_same < 0)[has_same & right])
            # Magnitudes: the donors are the same prompts in another order, so that changes of a
            # node that adds to the logit difference have a mean of 0 whatever it carries.
            change = (before - by_same)[has_same].abs().mean()
            moved_by_same = float(change / whole.mean())
        return Swap(
            place=place,
            n_prompts=int(right.sum()),
            flipped=_share((swapped < 0)[right]),
            moved=float((before - swapped).mean() / whole.mean()),
            flipped_by_same=flipped_by_same,
            moved_by_same=moved_by_same,
        )

    def loss_with(self, *, ablated: KeptNodes = NO_NODES, fixed: KeptNodes = NO_NODES) -> float:
        """Return the task loss with nodes at constant values, at all tokens of all prompts.

        Args:
            ablated: nodes at their means over text, as if they were outside the circuit.
            fixed: other nodes, at their averages over the tokens of other pairs.
        """
        values = {site: value.clone() for site, value in self.means.items()}
        for site, nodes in fixed.items():
            channels = self.recorded.channels[site][nodes]
            values[site][channels] = self.averages[site][channels]
        edits = {}
        for site in {**ablated, **fixed}:
            parts = [part[site] for part in (ablated, fixed) if site in part]
            channels = self.recorded.channels[site][torch.cat(parts)]
            edits[site] = _constant(channels, values[site][channels])
        return self.masked_circuit.loss(self.recorded.batch, edits)

    def _taking(self, nodes: KeptNodes, mask: Tensor, donors: Tensor, place: Place) -> EditsOf:
        """Return the edits with which nodes take, at some tokens, the values of a donor prompt.

        Args:
            nodes: the nodes.
            mask: (2P, T) bool, the tokens.
            donors: (2P,) the prompt that each prompt takes values from.
            place: the tokens of the donors from which the values come.
        """
        sources = _matching_tokens(mask, self.recorded.places[place][donors])  # (2P, T)
        taken = {}
        for site, numbers in nodes.items():
            of_donors = self.recorded.values[site][..., numbers][donors]
            index = sources[..., None].expand(-1, -1, len(numbers))
            taken[site] = of_donors.gather(1, index)

        def edits(part: TokenizedPairs, rows: Tensor) -> dict[str, Edit]:
            length = part.tokens.shape[1]
            return {
                site: _replaced(
                    self.recorded.channels[site][numbers],
                    mask[rows, :length, None],
                    taken[site][rows, :length],
                )
                for site, numbers in nodes.items()
            }

        return edits


def _share(values: Tensor) -> float:
    """Return the share of True values (n,), at least one value."""
    return float(values.double().mean())


def _same_answers(batch: TokenizedPairs) -> Tensor:
    """Return (2P,) int64: the next prompt, on the same side, of a pair with the same answers.

    -1 where there is none. The last pair is followed by the first.
    """
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, answers in enumerate(batch.answers.tolist()):
        rows_of.setdefault((row % 2, *answers), []).append(row)
    following = torch.full((len(batch.answers),), -1)
    for rows in rows_of.values():
        if len(rows) > 1:
            following[torch.tensor(rows)] = torch.tensor([*rows[1:], rows[0]])
    return following.to(batch.answers.device)


def _matching_tokens(mask: Tensor, donor_mask: Tensor) -> Tensor:
    """Return (R, T) int64: for the i-th True token of a row, the i-th True token of its donor.

    A row with more of them takes the donor's last one for the rest; other tokens get any index.
    """
    number = (mask.cumsum(1) - 1).clamp(min=0)
    most = donor_mask.sum(1, keepdim=True) - 1
    # Stable sort: the positions of True tokens come first, in order.
    positions = donor_mask.int().sort(dim=1, descending=True, stable=True).indices
    return positions.gather(1, torch.minimum(number, most))


def _replaced(channels: Tensor, mask: Tensor, values: Tensor) -> Edit:
    def edit(x: Tensor) -> Tensor:
        chosen = torch.where(mask, values, x[..., channels])
        return x.index_copy(-1, channels, chosen)

    return edit


def _constant(channels: Tensor, values: Tensor) -> Edit:
    return lambda x: x.index_copy(-1, channels, values.expand(*x.shape[:2], -1))
