"""Evaluation of a model on fixed held-out batches: loss, kurtosis, dead neurons.

Values are reduced at their sites during the forward pass, so that an evaluation needs no more
memory than a forward pass. Shapes: B sequences, T tokens, D d_model, M d_mlp.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wirework.data import Batch
from wirework.nn import Edit, Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights


@torch.no_grad()
@unchanged_weights()
def evaluate_batches(
    transformer: Transformer,
    batches: Sequence[Batch],
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Measure a model on held-out batches.

    Args:
        transformer: the model, on `device`; the caller's autocast applies.
        batches: held-out tokens and targets, (B, T) each, all of one shape.
        device: device of the model.
        stopped: called between batches; the evaluation ends if it returns True.

    Returns:
        `val_loss` (mean nats per token), `kurtosis` (of the final residual stream, over all tokens
        and channels; 3 for a normal distribution), `dead_neurons` (MLP neurons that are zero at
        every token of the batches) and `dead_neurons_by_layer`; None if `stopped` ended it.

    Source: Gao et al. 2025, Fig. 10 (kurtosis).
    """
    n_layer = transformer.config.n_layer
    moments = Moments()
    alive = [torch.zeros(transformer.config.d_mlp, dtype=torch.bool, device=device)] * n_layer
    edits: dict[str, Edit] = {"final_resid": moments.add}

    def alive_marker(layer: int) -> Edit:
        def mark(x: Tensor) -> Tensor:
            alive[layer] = alive[layer] | x.flatten(0, -2).any(0)
            return x

        return mark

    edits |= {f"{layer}.mlp.post_act": alive_marker(layer) for layer in range(n_layer)}
    losses = []
    with transformer.edited(edits):
        for tokens, targets in batches:
            if stopped():
                return None
            losses.append(transformer.loss(to_device(tokens, device), to_device(targets, device)))
    dead: list[int] = (~torch.stack(alive)).sum(1).tolist()
    return {
        "val_loss": torch.stack(losses).double().mean().item(),
        "kurtosis": moments.kurtosis(),
        "dead_neurons": sum(dead),
        "dead_neurons_by_layer": dead,
    }


def to_device(batch: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Return a batch as a tensor on the device, without waiting for the copy."""
    tokens = torch.from_numpy(batch)
    if device.type == "cuda":  # only from pinned memory does the copy wait for nothing
        tokens = tokens.pin_memory()
    return tokens.to(device, non_blocking=True)


class Moments:
    """First four power sums of all values at a site, in float64."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, x: Tensor) -> Tensor:
        """Add values of any shape and return them unchanged, so that this is an edit of a site."""
        values = x.double().flatten()
        squares = values * values
        sums = torch.stack(
            [values.sum(), squares.sum(), torch.dot(squares, values), torch.dot(squares, squares)]
        )
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += values.numel()
        return x

    def kurtosis(self) -> float:
        """Return E[(x - mean)^4] / E[(x - mean)^2]^2, or 0 for equal values or no values."""
        if self._sums is None:
            return 0.0
        mean, second, third, fourth = map(float, (self._sums / self._count).tolist())
        variance = second - mean**2
        if variance <= 0:
            return 0.0
        central: float = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        return central / (variance * variance)
