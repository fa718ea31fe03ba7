"""Gates of a self-ablating model: linear heads on the clean stream score units, the k best stay on.

The gates are no part of the transformer, which works without them as a plain model.
Shapes: B sequences, T tokens, D d_model, A = n_head * d_head attention units, M d_mlp neurons,
L layers. Source: Ferrao et al. 2025.
"""

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from wirework.config import GatingConfig, ModelConfig
from wirework.nn.kernels.linear import Linear
from wirework.nn.kernels.sparse_gate import (
    Head,
    SparseMask,
    dense_mask,
    sparse_is_faster,
    sparse_k_winners,
    total_scores,
)
from wirework.nn.kernels.winners import k_winners


class GateMasks(NamedTuple):
    """Masks of one layer, for each token: 1 where a unit is on, else 0; fractions with `soft`."""

    attention: Tensor
    """(B, T, A)."""
    neurons: Tensor | SparseMask
    """(B, T, M), dense or sparse, whichever is faster."""

    @property
    def all_neurons(self) -> Tensor:
        """(B, T, M)."""
        return dense_mask(self.neurons, self.attention)


class Gates(nn.Module):
    """Linear heads that score units, and the choice of the k winners.

    Args:
        model: shape of the transformer.
        gating: level, k and temperatures.
        seed: seed of the initial weights (normal, std 0.02; biases 0).

    Raises:
        InputError: k is not below the number of units.

    Source: Ferrao et al. 2025.
    """

    def __init__(self, model: ModelConfig, gating: GatingConfig, seed: int = 0) -> None:
        super().__init__()
        self.gating = gating
        gating.check_fits(model)
        self.widths = (model.n_head * model.d_head, model.d_mlp)
        self.n_layer = model.n_layer
        width = model.d_model
        local = gating.level in ("local", "both")
        heads = nn.ModuleList(_Heads(width, self.widths) for _ in range(local * model.n_layer))
        self.local = cast(Sequence[_Heads], heads)
        attention, neurons = (model.n_layer * units for units in self.widths)
        self.whole = None if gating.level == "local" else _Heads(width, (attention, neurons))
        # Not the transformer's random stream: the gates would begin as copies of its embedding.
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
            inputs: (B, T, D) input of each block in the clean stream.
            final: (B, T, D) final normalised state of the clean stream; only global gates read it.
        """
        # In full precision: with fewer bits scores would tie, and the choice would be arbitrary.
        inputs, final = [x.to(self._dtype) for x in inputs], final.to(self._dtype)
        gating, masks = self.gating, []
        with torch.autocast(final.device.type, enabled=False):
            attention, neurons = (
                self._heads(kind, inputs, final) for kind in ("attention", "neurons")
            )
            for attention_heads, neuron_heads in zip(attention, neurons, strict=True):
                attention_mask = self._winners(
                    attention_heads, gating.k_attention, gating.temperature_attention
                )
                neuron_mask = self._winners(
                    neuron_heads, gating.k_neurons, gating.temperature_neurons
                )
                masks.append(GateMasks(dense_mask(attention_mask, final), neuron_mask))
        return masks

    def _heads(
        self, kind: Literal["attention", "neurons"], inputs: Sequence[Tensor], final: Tensor
    ) -> list[list[Head]]:
        """Return, for each layer, the heads whose scores are added."""
        layers: list[list[Head]] = [[] for _ in range(self.n_layer)]
        for layer_heads, heads, x in zip(layers, self.local, inputs, strict=False):
            head: Linear = getattr(heads, kind)
            layer_heads.append(Head(x, head.weight, head.bias))
        if self.whole is not None:
            head = getattr(self.whole, kind)
            parts = (parameter.chunk(self.n_layer) for parameter in (head.weight, head.bias))
            for layer_heads, weight, bias in zip(layers, *parts, strict=True):
                layer_heads.append(Head(final, weight, bias))
        return layers

    def _winners(self, heads: Sequence[Head], k: int, temperature: float) -> Tensor | SparseMask:
        gating = self.gating
        if gating.mask == "hard" and sparse_is_faster(heads[0], k, temperature):
            return sparse_k_winners(heads, k, temperature, gating.epsilon)
        return k_winners(
            total_scores(heads),
            k,
            temperature=temperature,
            epsilon=gating.epsilon,
            mask=gating.mask,
        )

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class _Heads(nn.Module):
    """Two linear heads: one scores attention units, the other neurons."""

    def __init__(self, width: int, units: tuple[int, int]) -> None:
        super().__init__()
        self.attention, self.neurons = (Linear(width, count) for count in units)
