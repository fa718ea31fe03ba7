"""Greedy removal of gates from one mask while the task loss stays within a target.

A tried mask differs little from the current one, so only the layers from the first changed gate on
are computed. The residual stream before every block is cached for the current mask.
Shapes: G gates, B sequences, T tokens, D d_model.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from wirework.circuits.masking.masks import (
    CHECK_TOKENS,
    MaskPass,
    Masks,
    length_groups,
    sum_at_most,
)
from wirework.tasks import TokenizedPairs, pair_losses
from wirework.tasks.task_loss import largest_sum

_Streams = list[Tensor]
"""Residual stream before each layer's block, (B, T, D), for some prompts."""


class GreedyRemoval:
    """A mask whose loss stays within a target while gates are removed from it.

    Memory: T x D x layers values per prompt and ablation mode.

    Args:
        masks: the model with its gates.
        gates: (G,), the mask to start from.
        batch: tokenised pairs of a task.
        target: task loss in nats, to be met in every ablation mode.
        on_try: called before each removal that is tried, for a progress bar.
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
        self._masks, self._batch, self._target = masks, batch, target
        self._ablation_modes = masks.ablation_modes()
        self._parts = [batch.select(pairs) for pairs in length_groups(batch, 1, CHECK_TOKENS)]
        self._limit = largest_sum(target, len(batch.last_positions), masks.loss_reduction)
        runs = [
            [_run(run_mask, part, None) for part in self._parts]
            for run_mask in (mode.pass_of(gates) for mode in self._ablation_modes)
        ]
        self._streams = [[streams for _, streams in run] for run in runs]
        self.reached = all(sum_at_most((loss for loss, _ in run), self._limit) for run in runs)
        """Whether the mask to start from reaches the target."""
        self.reached = self.reached and masks.withstands(gates, batch, target)

    def close(self, removed: Tensor) -> bool:
        """Remove gates if the target is still met; return whether it is.

        Args:
            removed: int64 indices of the gates.
        """
        if self._on_try is not None:
            self._on_try()
        first_layer = int(self._layers[removed.cpu()].min())
        gates = self.gates.clone()
        gates[removed] = 0
        streams: list[list[_Streams]] = []
        for mode, cached in zip(self._ablation_modes, self._streams, strict=True):
            streams.append([])
            losses = self._losses(mode, gates, cached, first_layer, streams[-1])
            if not sum_at_most(losses, self._limit):
                return False
        if not self._masks.withstands(gates, self._batch, self._target):
            return False
        self.gates, self._streams = gates, streams
        return True

    def _losses(
        self,
        mode: Masks,
        gates: Tensor,
        cached: list[_Streams],
        first_layer: int,
        new_streams: list[_Streams],
    ) -> Iterator[float]:
        """Yield the summed loss of each part of the batch, computed from a layer on.

        Args:
            mode: the model with its gates, in one ablation mode.
            gates: (G,), the mask.
            cached: streams of each part under the current mask.
            first_layer: first layer to compute; -1 to compute the embedding too.
            new_streams: list to which the streams of each part under this mask are appended.
        """
        run_mask = mode.pass_of(gates)
        for part, streams in zip(self._parts, cached, strict=True):
            start_from = None if first_layer < 0 else (first_layer, streams[first_layer])
            loss, later = _run(run_mask, part, start_from)
            new_streams.append([*streams[: max(first_layer, 0)], *later])
            yield loss


@torch.no_grad()
def _run(
    run_mask: MaskPass, part: TokenizedPairs, start_from: tuple[int, Tensor] | None
) -> tuple[float, _Streams]:
    """Return the summed loss of a part, and the stream before each block that is computed.

    `start_from` is a layer and the stream before it; None computes all layers.
    """
    block_inputs: _Streams = []
    logit_diffs = run_mask(part, start_from, block_inputs)
    return float(pair_losses(logit_diffs.double()).sum()), block_inputs
