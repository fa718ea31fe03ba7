"""What a check looks at: a model, the nodes of a circuit in it, and how to put the circuit on.

The checks see no more than this, so that they run alike for circuits of nodes and of edges.
Shapes: N nodes of all sites, k kept nodes of one site, P pairs (two rows each), T tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation, length_groups
from wirework.circuits.masking.nodes import NodeSpace
from wirework.errors import InputError
from wirework.nn import Edit, Transformer
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

Edits = Mapping[str, Edit]
"""Site to edit."""

NOTHING: Edits = MappingProxyType({})
"""No edit at all."""

EditsOf = Callable[[TokenizedPairs, Tensor], Edits]
"""Gets some rows of a task and their places (int64) in the whole; returns what to edit for them."""


class Gated(Protocol):
    """A model under masks over units: nodes, or the edges between some of them."""

    def losses(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the task loss under each mask (R, units), (R,) float64 in nats."""

    def all_differences(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return right minus wrong logit under each mask, (R, 2P)."""


@dataclass(frozen=True)
class MaskedCircuit:
    """A circuit in its model."""

    transformer: Transformer
    space: NodeSpace
    gates: Tensor
    """(N,), nonzero at the circuit's nodes."""
    on: Callable[[], AbstractContextManager[None]]
    """Puts the circuit on the model for a `with` block: what is outside it rests. Edits put on
    inside the block act on what it leaves, and every row of a batch gets the same circuit."""

    @classmethod
    def of(cls, ablation: Ablation, gates: Tensor) -> "MaskedCircuit":
        """Return the circuit of the nodes in `gates` (N,), all others mean-ablated."""
        transformer = ablation.transformer
        return cls(
            transformer, ablation.space, gates, lambda: transformer.edited(ablation.edits(gates))
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.transformer.embed.weight.device

    @property
    def kept(self) -> dict[str, Tensor]:
        """Site to the channels of its kept nodes, int64 ascending; sites that have some."""
        parts = self.space.split(self.gates.to(self.device))
        channels_of = {name: part.nonzero().flatten() for name, part in parts.items()}
        return {name: channels for name, channels in channels_of.items() if len(channels)}

    @torch.no_grad()
    def logit_diffs(self, batch: TokenizedPairs, edits: Edits | EditsOf = NOTHING) -> Tensor:
        """Return right minus wrong logit with the circuit on, (2P,), in bounded memory.

        Args:
            batch: a task.
            edits: what to change on top of the circuit; called, once a pass, if it is a function.
        """
        logit_diffs = torch.zeros(len(batch.last_positions), dtype=self._dtype, device=self.device)
        for places, part in passes(batch):
            changed = edits(part, places) if callable(edits) else edits
            with self.on(), self.transformer.edited(changed):
                logits = self.transformer(part.tokens, part.last_positions)
            logit_diffs[places] = logit_difference(logits, part.answers)
        return logit_diffs

    def loss(self, batch: TokenizedPairs, edits: Edits | EditsOf = NOTHING) -> float:
        """Return the task loss in nats with the circuit on.

        Raises:
            InputError: it is not a finite number.
        """
        return mean_loss(self.logit_diffs(batch, edits))

    @torch.no_grad()
    def values(self, batch: TokenizedPairs) -> dict[str, Tensor]:
        """Return site to (rows, T, k), the circuit's own nodes there, from one pass."""
        values: dict[str, Tensor] = {}

        def recorder(name: str, channels: Tensor) -> Edit:
            def record(x: Tensor) -> Tensor:
                values[name] = x[..., channels]
                return x

            return record

        watchers = {name: recorder(name, channels) for name, channels in self.kept.items()}
        with self.on(), self.transformer.edited(watchers):
            self.transformer.state(batch.tokens)
        return values

    @property
    def _dtype(self) -> torch.dtype:
        wide = self.transformer.embed.weight.dtype == torch.float64
        return torch.float64 if wide else torch.float32


def passes(batch: TokenizedPairs) -> Iterator[tuple[Tensor, TokenizedPairs]]:
    """Part a task into passes of bounded memory: places (int64) of rows, and those rows."""
    for pairs in length_groups(batch, 1):
        yield torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten(), batch.select(pairs)


def mean_loss(logit_diffs: Tensor) -> float:
    """Return the task loss in nats of rows with these differences of right and wrong logit.

    Raises:
        InputError: it is not a finite number.
    """
    return finite(float(pair_losses(logit_diffs.double()).mean()), "a task loss")


def finite(value: float, what: str) -> float:
    """Return `value`.

    Raises:
        InputError: it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise InputError(f"{what} is {value}: the model or what it rests at has no finite values")
    return value
