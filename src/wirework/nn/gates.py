"""Gates: which units of each token and layer win, scored by linear heads on the clean stream.

They stand outside the transformer, which is a plain one without them.
Shapes: B sequences, T tokens, D d_model, A = n_head * d_head attention units, M d_mlp neurons, L
layers. Source: Ferrao et al. 2025.
"""

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wirework.config import GatingConfig, ModelConfig
from wirework.nn.linear import Linear
from wirework.nn.winners import k_winners


class Masks(NamedTuple):
    """Which units of each token stay on in a layer: 0 or 1, or between with `soft`."""

    attention: Tensor
    """(B, T, A)."""
    neurons: Tensor
    """(B, T, M)."""
    winning: Tensor | None
    """(B, T, k) int64, the neurons that are on; None for a soft mask."""


class Gates(nn.Module):
    """Linear heads that score units, and the choice of the k winners.

    Args:
        model: shape of the transformer that they gate.
        gating: level, k, temperatures.
        seed: of the initial weights (normal, std 0.02; biases 0).

    Raises:
        InputError: k is not below the number of units.
    """

    def __init__(self, model: ModelConfig, gating: GatingConfig, seed: int = 0) -> None:
        super().__init__()
        self.gating = gating
        gating.check_fits(model)
        self.widths = (model.n_head * model.d_head, model.d_mlp)
        self.n_layer = model.n_layer
        width = model.d_model
        local = gating.level in ("local", "both")
        self.local = nn.ModuleList(_Heads(width, self.widths) for _ in range(local * model.n_layer))
        attention, neurons = (model.n_layer * units for units in self.widths)
        self.whole = None if gating.level == "local" else _Heads(width, (attention, neurons))
        # Another stream than the transformer's, or they would begin as copies of its embedding.
        dice = torch.Generator().manual_seed(Random(f"gates {seed}").getrandbits(63))
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, 0.02, generator=dice)
                else:
                    parameter.zero_()

    def masks(self, inputs: Sequence[Tensor], final: Tensor) -> list[Masks]:
        """Return the masks of each layer.

        Args:
            inputs: (B, T, D) of each block, clean.
            final: (B, T, D), the clean final normalised state, which only global gates read.
        """
        # In full precision: among few bits scores would tie, and the choice would be arbitrary.
        inputs, final = [x.to(self._dtype) for x in inputs], final.to(self._dtype)
        with torch.autocast(final.device.type, enabled=False):
            scores = self._scores(inputs, final)
        return [self._winners(attention, neurons) for attention, neurons in scores]

    def _scores(self, inputs: Sequence[Tensor], final: Tensor) -> list[tuple[Tensor, Tensor]]:
        scores = [heads(x) for heads, x in zip(self.local, inputs, strict=False)]
        if self.whole is not None:
            parts = (scored.chunk(self.n_layer, -1) for scored in self.whole(final))
            whole = list(zip(*parts, strict=True))
            pairs = zip(scores or [(0, 0)] * self.n_layer, whole, strict=True)
            scores = [(a + c, b + d) for (a, b), (c, d) in pairs]
        return scores

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _winners(self, attention: Tensor, neurons: Tensor) -> Masks:
        on = self.gating
        choose = partial(k_winners, epsilon=on.epsilon, mask=on.mask)
        heads = choose(attention, on.k_attention, temperature=on.temperature_attention)
        won = choose(neurons, on.k_neurons, temperature=on.temperature_neurons)
        return Masks(heads.mask, won.mask, won.indices)


class _Heads(nn.Module):
    """Scores of attention units and of neurons."""

    def __init__(self, width: int, units: tuple[int, int]) -> None:
        super().__init__()
        self.attention, self.neurons = (Linear(width, count) for count in units)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(x), self.neurons(x)
