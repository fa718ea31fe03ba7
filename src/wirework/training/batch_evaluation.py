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

_ROUNDING = 1e-7
"""Spread of a channel, as a share of its mean, that float32 rounding alone can give."""


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
        `val_loss` (mean nats per token), `log_kurtosis` (of the final residual stream, see
        `Moments.log_kurtosis`), `kurtosis` (the same pooled over tokens and channels, as earlier
        versions report it), `dead_neurons` (MLP neurons that are zero at every token of the
        batches) and `dead_neurons_by_layer`; None if `stopped` ended it.

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
        "log_kurtosis": moments.log_kurtosis(),
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
    """First four power sums of each channel at a site, in float64.

    They are of the distances from the mean of the first values: sums of raw powers lose all digits
    of a channel whose spread is small beside its mean.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # (4, D)
        self._shift = torch.zeros(0)  # (D,)
        self._count = 0

    def add(self, x: Tensor) -> Tensor:
        """Add values (..., D) and return them unchanged, so that this is an edit of a site."""
        values = x.double().reshape(-1, x.shape[-1])
        if self._sums is None:
            self._shift = values.mean(0)
        values = values - self._shift
        squares = values * values
        powers = (values, squares, squares * values, squares * squares)
        sums = torch.stack([power.sum(0) for power in powers])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += len(values)
        return x

    def log_kurtosis(self) -> float:
        """Return log(mean over channels of the kurtosis over tokens), natural logarithm.

        The kurtosis is Pearson's, E[(x - mean)^4] / E[(x - mean)^2]^2: 1 at least, 3 for a normal
        distribution (log 3 = 1.10). Channels without spread have none and are left out.

        Returns:
            0, the least possible value, if no channel has any spread.

        Source: Gao et al. 2025, Fig. 10.
        """
        if self._sums is None:
            return 0.0
        means = self._sums[0] / self._count
        second, fourth = self._central_moments(-means)
        rounding = (_ROUNDING * (self._shift + means)) ** 2
        varies = second > rounding
        if not bool(varies.any()):
            return 0.0
        return float((fourth / second.square())[varies].mean().log())

    def kurtosis(self) -> float:
        """Return the kurtosis pooled over all tokens and channels, or 0 for equal or no values.

        Earlier versions report this. It also grows when channels differ in scale, even if each is
        normally distributed.
        """
        if self._sums is None:
            return 0.0
        total_mean = (self._shift + self._sums[0] / self._count).mean()
        second, fourth = (part.mean() for part in self._central_moments(self._shift - total_mean))
        if float(second) <= 0:
            return 0.0
        return float(fourth / second.square())

    def _central_moments(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[(y + shift)^2] and E[(y + shift)^4] of each channel, (D,); y are the distances.

        Args:
            shift: (D,).
        """
        assert self._sums is not None
        first, second, third, fourth = self._sums / self._count
        return (
            second + 2 * shift * first + shift**2,
            fourth + 4 * shift * third + 6 * shift**2 * second + 4 * shift**3 * first + shift**4,
        )
