"""The two residual streams of a self-ablating model: clean, and with only each token's winners.

Shapes: B sequences, T tokens, D d_model, L layers, A attention units, M neurons.
Source: Ferrao et al. 2025.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.config import GatingConfig
from wirework.nn.block import AblatedInputs
from wirework.nn.gates import GateMasks, Gates
from wirework.nn.kernels.unit_distance import unit_distance
from wirework.nn.sites import nothing_acts
from wirework.nn.transformer import Transformer

_FIRST_Y = "0.attn.y"


class Streams(NamedTuple):
    """Results of one pass of both streams."""

    clean: Tensor
    """(B, T, D) final normalised state, bitwise equal to that of the plain transformer."""
    ablated: Tensor
    """(B, T, D) final normalised state of the ablated stream."""
    masks: Sequence[GateMasks]
    """Masks of each layer."""
    reconstruction: Tensor
    """Scalar: mean squared difference of the streams after scaling each token to unit length, over
    all blocks and the final norm. 0 if its coefficient is 0: it is then not computed."""

    @property
    def attention_masks(self) -> Tensor:
        """(B, T, L, A), 1 where an attention unit is on."""
        return torch.stack([layer.attention for layer in self.masks], 2)

    @property
    def neuron_masks(self) -> Tensor:
        """(B, T, L, M), 1 where a neuron is on."""
        return torch.stack([layer.all_neurons for layer in self.masks], 2)


def combined_loss(
    gating: GatingConfig, clean: Tensor, ablated: Tensor, reconstruction: Tensor
) -> Tensor:
    """Return the training loss of a self-ablating model: the weighted sum of its three losses.

    Args:
        gating: has the coefficients.
        clean: scalar next-token loss of the clean stream, nats.
        ablated: scalar next-token loss of the ablated stream, nats.
        reconstruction: scalar reconstruction loss.
    """
    return (
        gating.base_coef * clean
        + gating.ablated_coef * ablated
        + gating.reconstruction_coef * reconstruction
    )


def clean_sites(n_layer: int) -> list[str]:
    """Return the sites of the clean stream whose values the ablated stream reads."""
    kinds = ("resid_in", "attn.k", "attn.v")
    by_layer = (f"{layer}.{kind}" for layer in range(n_layer) for kind in kinds)
    return [*by_layer, _FIRST_Y, "final_resid"]


def two_streams(transformer: Transformer, gates: Gates, tokens: Tensor) -> Streams:
    """Run both streams.

    Args:
        transformer: the model.
        gates: gates of the model.
        tokens: (B, T) int64.

    Source: Ferrao et al. 2025 (two residual streams).
    """
    with transformer.recorded(clean_sites(transformer.config.n_layer)) as values:
        transformer.state(tokens)
    return run_ablated_stream(transformer, gates, tokens, values)


def run_ablated_stream(
    transformer: Transformer, gates: Gates, tokens: Tensor, clean_values: Mapping[str, Tensor]
) -> Streams:
    """Run the ablated stream after a clean one.

    Args:
        transformer: the model.
        gates: gates of the model.
        tokens: (B, T) int64.
        clean_values: values of the clean stream at `clean_sites`, by site.

    Source: Ferrao et al. 2025 (two residual streams).
    """
    layers = range(transformer.config.n_layer)
    inputs = [clean_values[f"{layer}.resid_in"] for layer in layers]
    clean = transformer.norm(clean_values["final_resid"])
    masks = gates.masks(inputs, clean)
    ablated = [
        AblatedInputs(
            clean_values[f"{layer}.attn.k"], clean_values[f"{layer}.attn.v"], *masks[layer]
        )
        for layer in layers
    ]
    ablated[0] = ablated[0]._replace(y=_common_head_outputs(transformer, clean_values))
    outputs, final = transformer.run_ablated(tokens, ablated)
    reconstruction = clean.new_zeros(())
    if gates.gating.reconstruction_coef > 0:
        pairs = [
            *zip([*inputs[1:], clean_values["final_resid"]], outputs, strict=True),
            (clean, final),
        ]
        reconstruction = torch.stack([unit_distance(a, b) for a, b in pairs]).mean()
    return Streams(
        clean=clean,
        ablated=final,
        masks=masks,
        reconstruction=reconstruction,
    )


def _common_head_outputs(
    transformer: Transformer, clean_values: Mapping[str, Tensor]
) -> Tensor | None:
    """Return the head outputs of the first block, (B, T, A), if those of both streams are the same.

    Both streams begin with the embedding. Edits and hooks must act in each, as they may be random
    or count their calls: with any of them, return None.
    """
    block = transformer.blocks[0]
    read = (transformer.embed, transformer.positions, block.norm1, block.pos_norm1)
    parts = [part for part in (*read, block.resid_in, block.attn) if part is not None]
    return clean_values[_FIRST_Y] if nothing_acts(parts) else None
