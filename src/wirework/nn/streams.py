"""The two residual streams of a self-ablating model: clean, and with each token's winners alone.

Shapes: B sequences, T tokens, D d_model, L layers, A attention units, M neurons.
Source: Ferrao et al. 2025.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.config import GatingConfig
from wirework.nn.gates import GateMasks, Gates
from wirework.nn.kernels.unit_distance import unit_distance
from wirework.nn.transformer import Ablated, Transformer


class Streams(NamedTuple):
    """What a pass of both streams comes to."""

    clean: Tensor
    """(B, T, D), the final normalised state, bitwise that of the plain transformer."""
    ablated: Tensor
    """(B, T, D)."""
    masks: Sequence[GateMasks]
    """Of each layer."""
    reconstruction: Tensor
    """Scalar: mean squared difference of the streams, each token of unit length, over all blocks
    and the final norm; 0 where the gates give it no weight."""

    @property
    def attention_masks(self) -> Tensor:
        """(B, T, L, A)."""
        return torch.stack([layer.attention for layer in self.masks], 2)

    @property
    def neuron_masks(self) -> Tensor:
        """(B, T, L, M)."""
        return torch.stack([layer.all_neurons for layer in self.masks], 2)


def combined(gating: GatingConfig, clean: Tensor, ablated: Tensor, apart: Tensor) -> Tensor:
    """Return what a self-ablating model is trained on: its three losses by their coefficients."""
    return (
        gating.base_coef * clean
        + gating.ablated_coef * ablated
        + gating.reconstruction_coef * apart
    )


def clean_sites(n_layer: int) -> list[str]:
    """Return the sites of a clean pass that an ablated one needs."""
    kinds = ("resid_in", "attn.k", "attn.v")
    return [*(f"{layer}.{kind}" for layer in range(n_layer) for kind in kinds), "final_resid"]


def two_streams(transformer: Transformer, gates: Gates, tokens: Tensor) -> Streams:
    """Run both streams on tokens (B, T) int64."""
    with transformer.recorded(clean_sites(transformer.config.n_layer)) as seen:
        transformer.state(tokens)
    return beside(transformer, gates, tokens, seen)


def beside(
    transformer: Transformer, gates: Gates, tokens: Tensor, seen: Mapping[str, Tensor]
) -> Streams:
    """Run the ablated stream beside a clean one.

    Args:
        transformer: the model.
        gates: of it.
        tokens: (B, T) int64.
        seen: `clean_sites` as the clean pass left them.
    """
    layers = range(transformer.config.n_layer)
    inputs = [seen[f"{layer}.resid_in"] for layer in layers]
    clean = transformer.norm(seen["final_resid"])
    masks = gates.masks(inputs, clean)
    ablated = [
        Ablated(seen[f"{layer}.attn.k"], seen[f"{layer}.attn.v"], *masks[layer]) for layer in layers
    ]
    outputs, final = transformer.ablated(tokens, ablated)
    apart = clean.new_zeros(())
    if gates.gating.reconstruction_coef > 0:
        pairs = [*zip([*inputs[1:], seen["final_resid"]], outputs, strict=True), (clean, final)]
        apart = torch.stack([unit_distance(one, other) for one, other in pairs]).mean()
    return Streams(
        clean=clean,
        ablated=final,
        masks=masks,
        reconstruction=apart,
    )
