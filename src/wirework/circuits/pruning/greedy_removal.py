"""Greedy removal of gates from one mask while the task loss stays within a target.

A tried mask differs little from the current mask, so only the layers from the first changed one
on are computed; the inputs of every block under the current mask are cached.
Shapes: G gates, B sequences, T tokens, D d_model.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import CHECK_TOKENS, Masks, length_groups, sum_at_most
from wirework.tasks import TokenizedPairs, pair_losses

_Streams = list[Tensor]
"""Cached input of each layer's block, (B, T, D), for some prompts."""


class GreedyRemoval:
    """A mask whose loss stays within a target while gates are removed from it.

    Memory: T x D x layers values per prompt and ablation mode.

    Args:
        masks: the model with its gates.
        gates: (G,), the mask to start from.
        batch: tokenised pairs of a task.
        target: task loss in nats, to be met in every ablation mode.
        on_try: called before each removal that is tried.
    """

    def __init__(
        self,
        masks: Masks,
        gates: Tensor,
        batch: TokenizedPairs,
        target: float,
        on_try: Callable[[], None] | None = None,
    ) -> None:
        self._on_try = on_try
        self.gates = gates
        """(G,), the current mask."""
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
        """Whether the mask to start from reaches the target."""

    def close(self, places: Tensor) -> bool:
        """Remove these gates (int64 indices) if the target is still met; return whether it is."""
        if self._on_try is not None:
            self._on_try()
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
        """Yield the summed loss of each part of the batch, computed from layer `first` on.

        The block inputs of each part are appended to `new_streams`, those below layer `first`
        copied from `known`.
        """
        for part, before in zip(self._parts, known, strict=True):
            loss, after = self._run(mode, gates, part, (first, before[first]))
            new_streams.append([*before[:first], *after])
            yield loss

    @torch.no_grad()
    def _run(
        self,
        mode: Masks,
        gates: Tensor,
        part: TokenizedPairs,
        start_from: tuple[int, Tensor] | None,
    ) -> tuple[float, _Streams]:
        """Return the summed loss of a part and the input of each block from `start_from` on."""
        kept: _Streams = []
        logit_diffs = mode.logit_diffs(gates[None], part, start_from, kept)
        return float(pair_losses(logit_diffs.double()).sum()), kept
