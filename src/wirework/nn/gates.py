"""Gates: which units of each token and layer win, scored by linear heads on the clean stream.

They stand outside the transformer, which is a plain one without them.
Shapes: B sequences, T tokens, D d_model, A = n_head * d_head attention units, M d_mlp neurons, L
layers. Source: Ferrao et al. 2025.
"""

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wirework.config import GatingConfig, ModelConfig
from wirework.nn.kernels.linear import Linear
from wirework.nn.kernels.winners import k_winners
from wirework.nn.kernels.winning_gate import Head, Winning, dense, is_faster, summed, winning_units


class GateMasks(NamedTuple):
    """Which units of each token stay on in a layer: 0 or 1, or between with `soft`."""

    attention: Tensor
    """(B, T, A)."""
    neurons: Tensor | Winning
    """(B, T, M), or by its places where that is faster."""

    @property
    def all_neurons(self) -> Tensor:
        """(B, T, M)."""
        return dense(self.neurons, self.attention)


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
        generator = torch.Generator().manual_seed(Random(f"gates {seed}").getrandbits(63))
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, 0.02, generator=generator)
                else:
                    parameter.zero_()

    def masks(self, inputs: Sequence[Tensor], final: Tensor) -> list[GateMasks]:
        """Return the masks of each layer.

        Args:
            inputs: (B, T, D) of each block, clean.
            final: (B, T, D), the clean final normalised state, which only global gates read.
        """
        # In full precision: among few bits scores would tie, and the choice would be arbitrary.
        inputs, final = [x.to(self._dtype) for x in inputs], final.to(self._dtype)
        on, masks = self.gating, []
        with torch.autocast(final.device.type, enabled=False):
            of_attention, of_neurons = (
                self._heads(kind, inputs, final) for kind in ("attention", "neurons")
            )
            for some, others in zip(of_attention, of_neurons, strict=True):
                mask = self._winners(some, on.k_attention, on.temperature_attention)
                neurons = self._winners(others, on.k_neurons, on.temperature_neurons)
                masks.append(GateMasks(dense(mask, final), neurons))
        return masks

    def _heads(
        self, kind: Literal["attention", "neurons"], inputs: Sequence[Tensor], final: Tensor
    ) -> list[list[Head]]:
        """Return, for each layer, the heads whose scores add up."""
        layers: list[list[Head]] = [[] for _ in range(self.n_layer)]
        for found, heads, x in zip(layers, self.local, inputs, strict=False):
            head: Linear = getattr(heads, kind)
            found.append(Head(x, head.weight, head.bias))
        if self.whole is not None:
            head = getattr(self.whole, kind)
            parts = (parameter.chunk(self.n_layer) for parameter in (head.weight, head.bias))
            for found, weight, bias in zip(layers, *parts, strict=True):
                found.append(Head(final, weight, bias))
        return layers

    def _winners(self, heads: Sequence[Head], k: int, temperature: float) -> Tensor | Winning:
        on = self.gating
        if on.mask == "hard" and is_faster(heads[0], k, temperature):
            return winning_units(heads, k, temperature, on.epsilon)
        return k_winners(
            summed(heads), k, temperature=temperature, epsilon=on.epsilon, mask=on.mask
        )

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class _Heads(nn.Module):
    """Scores of attention units and of neurons."""

    def __init__(self, width: int, units: tuple[int, int]) -> None:
        super().__init__()
        self.attention, self.neurons = (Linear(width, count) for count in units)
