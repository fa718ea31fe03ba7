"""`MaskedCircuit`: a model, the nodes of a circuit, and how to ablate everything outside it.

All checks and the adversary (`ascent.py`) work on this, so that they are the same for circuits of
nodes and of edges.
Shapes: N nodes of all sites, k kept nodes of one site, P pairs (two prompts each), T tokens.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.compact import NO_EDITS, CompactCircuit, KeptEdits
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.masks import length_groups
from wirework.circuits.masking.nodes import NodeSpace
from wirework.config import LossReduction
from wirework.errors import InputError
from wirework.nn import Edit, Transformer
from wirework.tasks import TokenizedPairs, logit_difference
from wirework.tasks.task_loss import task_loss

Edits = Mapping[str, Edit]
"""Site to edit."""

NOTHING: Edits = MappingProxyType({})
"""No edits."""

EditsOf = Callable[[TokenizedPairs, Tensor], Edits]
"""Maps part of a batch and the indices (int64) of its prompts in the batch to edits for it."""


class Gated(Protocol):
    """A model with masks over units: nodes, or nodes and edges."""

    def losses(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the task loss per mask (R, units), (R,) float64 in nats."""

    def all_logit_diffs(self, gates: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the logit differences per mask, (R, 2P)."""


@dataclass(frozen=True)
class MaskedCircuit:
    """A circuit in its model, with everything outside it ablated on demand."""

    transformer: Transformer
    space: NodeSpace
    gates: Tensor
    """(N,), nonzero at the circuit's nodes."""
    on: Callable[[], AbstractContextManager[None]]
    """Ablates everything outside the circuit inside a `with` block. Edits added in the block act on
    the ablated values; every prompt of a batch gets the same circuit."""

    compact: Callable[[], CompactCircuit | None] = lambda: None
    """Returns a small model with the same outputs; None if there is none."""
    loss_reduction: LossReduction = "mean"
    """How losses combine the two prompts of a pair."""

    @classmethod
    def of(cls, ablation: Ablation, gates: Tensor) -> "MaskedCircuit":
        """Return the circuit of the nodes in `gates` (N,), all other nodes ablated."""
        return cls(
            ablation.transformer,
            ablation.space,
            gates,
            lambda: ablation.transformer.edited(ablation.edits(gates)),
            lambda: ablation.untied().compact(gates),
            ablation.loss_reduction,
        )

    @classmethod
    def of_edges(cls, edge_masks: EdgeMasks, gates: Tensor) -> "MaskedCircuit":
        """Return the circuit of the nodes and edges in `gates` (G,)."""
        return cls(
            edge_masks.transformer,
            edge_masks.ablation.space,
            edge_masks.mask(gates),
            lambda: edge_masks.applied(gates[None]),
            lambda: edge_masks.compact(gates),
            edge_masks.loss_reduction,
        )

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.transformer.embed.weight.device

    @property
    def kept(self) -> dict[str, Tensor]:
        """Site to the channels of its kept nodes, int64 ascending; only sites with kept nodes."""
        parts = self.space.split(self.gates.to(self.device))
        channels_of = {name: part.nonzero().flatten() for name, part in parts.items()}
        return {name: channels for name, channels in channels_of.items() if len(channels)}

    def runner(self) -> "Runner":
        """Return the forward pass of the circuit, in the cheapest way.

        The weights must not change before the last call.
        """
        compact = self.compact()

        def run(
            part: TokenizedPairs,
            edits: KeptEdits = NO_EDITS,
            start_from: tuple[int, Tensor] | None = None,
            block_inputs: list[Tensor] | None = None,
        ) -> Tensor:
            if compact is not None:
                return compact.logit_diffs(part, start_from, block_inputs, edits)
            of_sites = {name: of_channels(self.kept[name], edit) for name, edit in edits.items()}
            return self._run(part, of_sites, start_from, block_inputs)

        return run

    def _run(
        self,
        part: TokenizedPairs,
        edits: Edits,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
    ) -> Tensor:
        with self.on(), self.transformer.edited(edits):
            logits = self.transformer(part.tokens, part.last_positions, start_from, block_inputs)
        return logit_difference(logits, part.answers)

    @torch.no_grad()
    def logit_diffs(self, batch: TokenizedPairs, edits: Edits | EditsOf = NOTHING) -> Tensor:
        """Return the logit differences of the circuit alone, (2P,), in bounded memory.

        Args:
            batch: tokenised pairs of a task.
            edits: further edits of the circuit, or a function that returns them for each pass.
        """
        logit_diffs = torch.zeros(len(batch.last_positions), dtype=self._dtype, device=self.device)
        run = None if edits else self.runner()
        for rows, part in passes(batch):
            if run is not None:
                logit_diffs[rows] = run(part)
            else:
                logit_diffs[rows] = self._run(part, edits(part, rows) if callable(edits) else edits)
        return logit_diffs

    def loss(self, batch: TokenizedPairs, edits: Edits | EditsOf = NOTHING) -> float:
        """Return the task loss in nats of the circuit alone.

        Raises:
            InputError: it is not a finite number.
        """
        return self.loss_of(self.logit_diffs(batch, edits))

    def loss_of(self, logit_diffs: Tensor) -> float:
        """Return the task loss in nats of logit differences (N,).

        Raises:
            InputError: it is not a finite number.
        """
        return finite(float(task_loss(logit_diffs, self.loss_reduction)), "a task loss")

    @torch.no_grad()
    def values(self, batch: TokenizedPairs) -> dict[str, Tensor]:
        """Return site to (2P, T, k), activations of the circuit's nodes, from one pass."""
        values: dict[str, Tensor] = {}

        def recorder(name: str, channels: Tensor) -> Edit:
            def record(x: Tensor) -> Tensor:
                values[name] = x[..., channels]
                return x

            return record

        recorders = {name: recorder(name, channels) for name, channels in self.kept.items()}
        with self.on(), self.transformer.edited(recorders):
            self.transformer.state(batch.tokens)
        return values

    @property
    def _dtype(self) -> torch.dtype:
        is_float64 = self.transformer.embed.weight.dtype == torch.float64
        return torch.float64 if is_float64 else torch.float32


class Runner(Protocol):
    """The forward pass of a circuit."""

    def __call__(
        self,
        part: TokenizedPairs,
        edits: KeptEdits = NO_EDITS,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the logit differences, (2P,).

        Args:
            part: tokenised pairs, as many as fit in one pass.
            edits: changes of kept nodes; a function gets (B, T, k) or, where only the last token is
                computed, (B, 1, k).
            start_from: a layer and the residual stream that its block reads, from `block_inputs` of
                an earlier call with the same pairs. Earlier layers are skipped.
            block_inputs: list to which the residual stream before each block is appended, of shape
                (2P, T, D), or (2P, 1, D) where only the last token is computed.
        """


def of_channels(channels: Tensor, edit: Edit) -> Edit:
    """Return an edit of a whole site that changes some channels."""
    return lambda x: x.index_copy(-1, channels, edit(x[..., channels]))


def passes(batch: TokenizedPairs) -> Iterator[tuple[Tensor, TokenizedPairs]]:
    """Split a batch into passes of bounded memory: prompt indices (int64) and those prompts."""
    for pairs in length_groups(batch, 1):
        yield torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten(), batch.select(pairs)


def finite(value: float, what: str) -> float:
    """Return `value` if it is finite.

    Raises:
        InputError: it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise InputError(
            f"{what} is {value}: the model or its ablation means have values that are not finite"
        )
    return value
