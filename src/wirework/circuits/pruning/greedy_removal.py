"""Closing gates of one mask after the other, as long as the loss stays within a target.

Each try differs little from the mask that stands, so only the layers from the first one that it
changes are computed; what these read under the standing mask is kept.
Shapes: G gates, B sequences, T tokens, D d_model.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import CHECK_TOKENS, Masks, length_groups, sum_at_most
from wirework.tasks import TokenizedPairs, pair_losses

_Streams = list[Tensor]
"""By layer, what its block reads of some rows."""


class GreedyRemoval:
    """A mask whose loss reaches a target, and stays so.

    Holds T x D x layers values for each row.

    Args:
        masks: the model and what its gates stand for.
        gates: (G,) of the mask to begin with.
        batch: a task.
        target: nats, to be met in each of the views of the masks.
    """

    def __init__(self, masks: Masks, gates: Tensor, batch: TokenizedPairs, target: float) -> None:
        self.gates = gates
        """(G,) of the mask that stands."""
        self._layers = masks.layers
        self._ablation_modes = masks.ablation_modes()
        self._parts = [batch.select(pairs) for pairs in length_groups(batch, 1, CHECK_TOKENS)]
        self._room = target * len(batch.last_positions)
        runs = [
            [self._run(mode, gates, part, None) for part in self._parts]
            for mode in self._ablation_modes
        ]
        self._streams = [[streams for _, streams in run] for run in runs]
        self.reached = all(sum_at_most((loss for loss, _ in run), self._room) for run in runs)
        """Whether the mask to begin with reaches the target."""

    def close(self, places: Tensor) -> bool:
        """Close the gates at these places (int64) if the target is still met; tell whether."""
        first = int(self._layers[places.cpu()].min())
        gates = self.gates.clone()
        gates[places] = 0
        streams: list[list[_Streams]] = []
        for mode, known in zip(self._ablation_modes, self._streams, strict=True):
            streams.append([])
            if not sum_at_most(self._losses(mode, gates, known, first, streams[-1]), self._room):
                return False
        self.gates, self._streams = gates, streams
        return True

    def _losses(
        self,
        mode: Masks,
        gates: Tensor,
        known: list[_Streams],
        first: int,
        new_streams: list[_Streams],
    ) -> Iterator[float]:
        """Yield the loss of each part of the rows, computed from layer `first` on.

        What the blocks read is appended to `found`, taken from `known` below that layer.
        """
        for part, before in zip(self._parts, known, strict=True):
            loss, after = self._run(mode, gates, part, (first, before[first]))
            new_streams.append([*before[:first], *after])
            yield loss

    @torch.no_grad()
    def _run(
        self, mode: Masks, gates: Tensor, part: TokenizedPairs, enter: tuple[int, Tensor] | None
    ) -> tuple[float, _Streams]:
        """Return the sum of the rows' losses, and what each block from the entered one on reads."""
        kept: _Streams = []
        logit_diffs = mode.differences(gates[None], part, enter, kept)
        return float(pair_losses(logit_diffs.double()).sum()), kept
