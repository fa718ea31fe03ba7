"""Closing gates of one mask after the other, as long as the loss stays within a target.

Each try differs little from the mask that stands, so only the layers from the first one that it
changes are computed; what these read under the standing mask is kept.
Shapes: G gates, B sequences, T tokens, D d_model.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import EARLY, Masks, fits, pieces
from wirework.tasks import TokenizedPairs, pair_losses

_Streams = list[Tensor]
"""By layer, what its block reads of some rows."""


class GreedyRemoval:
    """A mask whose loss reaches a target, and stays so.

    Holds T x D x layers values for each row.

    Args:
        masks: the model and what its gates stand for.
        gates: (G,) of the mask to begin with.
        rows: a task.
        target: nats, to be met in each of the views of the masks.
    """

    def __init__(self, masks: Masks, gates: Tensor, rows: TokenizedPairs, target: float) -> None:
        self.gates = gates
        """(G,) of the mask that stands."""
        self._layers = masks.layers
        self._views = masks.ablation_modes()
        self._parts = [rows.select(pairs) for pairs in pieces(rows, 1, EARLY)]
        self._room = target * len(rows.at)
        runs = [
            [self._run(view, gates, part, None) for part in self._parts] for view in self._views
        ]
        self._streams = [[streams for _, streams in run] for run in runs]
        self.reached = all(fits((loss for loss, _ in run), self._room) for run in runs)
        """Whether the mask to begin with reaches the target."""

    def close(self, places: Tensor) -> bool:
        """Close the gates at these places (int64) if the target is still met; tell whether."""
        first = int(self._layers[places.cpu()].min())
        gates = self.gates.clone()
        gates[places] = 0
        streams: list[list[_Streams]] = []
        for view, known in zip(self._views, self._streams, strict=True):
            streams.append([])
            if not fits(self._losses(view, gates, known, first, streams[-1]), self._room):
                return False
        self.gates, self._streams = gates, streams
        return True

    def _losses(
        self, view: Masks, gates: Tensor, known: list[_Streams], first: int, found: list[_Streams]
    ) -> Iterator[float]:
        """Yield the loss of each part of the rows, computed from layer `first` on.

        What the blocks read is appended to `found`, taken from `known` below that layer.
        """
        for part, before in zip(self._parts, known, strict=True):
            loss, after = self._run(view, gates, part, (first, before[first]))
            found.append([*before[:first], *after])
            yield loss

    @torch.no_grad()
    def _run(
        self, view: Masks, gates: Tensor, part: TokenizedPairs, enter: tuple[int, Tensor] | None
    ) -> tuple[float, _Streams]:
        """Return the sum of the rows' losses, and what each block from the entered one on reads."""
        kept: _Streams = []
        logit_diffs = view.differences(gates[None], part, enter, kept)
        return float(pair_losses(logit_diffs.double()).sum()), kept
