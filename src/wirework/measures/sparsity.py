"""Sparsity of a model: sizes of its weights, kurtosis, dead neurons, use of its gates.

Shapes: B sequences, T tokens, L layers, A attention units, M neurons.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.measures.text_evaluation import TextStats, evaluate_text
from wirework.summaries import Report, absent

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model
    from wirework.nn import Transformer
    from wirework.nn.gates import Gates

_EMBEDDINGS = ("embed.weight", "positions.weight", "unembed.weight")


@dataclass(frozen=True, repr=False)
class GateUse(Report):
    """How often the gates of a self-ablating model turn each unit on."""

    attention_live_fraction: tuple[tuple[float, ...], ...]
    """Share of tokens at which each attention unit is on, layer by layer."""
    neuron_live_fraction: tuple[tuple[float, ...], ...]
    """The same for neurons."""
    live_fraction: float
    """Mean over all units. Gates that keep exactly k units give k / number of units."""
    dead_attention_units: tuple[int, ...]
    """Number of attention units that are on at no token, layer by layer."""
    dead_neurons: tuple[int, ...]
    """The same for neurons."""
    dead_units: int
    """Sum of both over all layers."""
    n_tokens: int
    """Tokens that were read."""


@dataclass(frozen=True, repr=False)
class Sparsity(Report):
    """Sizes of a model's weights, its kurtosis and numbers of dead neurons."""

    mean_abs_weight: float
    """Mean magnitude of all parameters without token embedding, positions, unembedding (tied or
    not) and bigram table."""
    mean_abs_weight_embedded: float
    """The same with token embedding, positions and unembedding, a tied one counted twice, but
    without the bigram table. The published figures are of this kind (docs/measures.md)."""
    weight_l0: int
    """Nonzero entries of all matrices and biases, embedding and unembedding included."""
    weight_l0_fraction: float
    """The same as a share of all entries."""
    dead_neurons: int
    """MLP neurons that are exactly 0 at every token. GELU without AbsTopK has none."""
    dead_neurons_by_layer: tuple[int, ...]
    """The same, layer by layer."""
    n_tokens: int
    """Tokens that were read."""
    log_kurtosis: float | None = absent()
    """log(mean over channels of Pearson's kurtosis over tokens) of the final residual stream
    (Gao et al. 2025, Fig. 10); log 3 = 1.10 for normally distributed channels. None in reports of
    earlier versions."""
    gates: GateUse | None = absent()
    """Use of the gates; None for a model without gates, or if it was not measured."""

    @classmethod
    def of(cls, transformer: "Transformer", stats: TextStats) -> "Sparsity":
        """Return the weight counts of a model with the numbers of one pass over text."""
        entries, nonzero = transformer.weight_counts()
        return cls(
            mean_abs_weight=mean_abs_weight(transformer),
            mean_abs_weight_embedded=mean_abs_weight(transformer, embeddings=True),
            weight_l0=nonzero,
            weight_l0_fraction=nonzero / entries,
            dead_neurons=sum(stats.dead_neurons_by_layer),
            dead_neurons_by_layer=stats.dead_neurons_by_layer,
            n_tokens=stats.n_tokens,
            log_kurtosis=stats.log_kurtosis,
        )


def sparsity(model: "Model | str | Path", text: "Tokens", n_tokens: int = 65_536) -> Sparsity:
    """Measure a model's weights, and on text its kurtosis and dead neurons.

    Args:
        model: the model; a path is loaded.
        text: tokens, usually of the held-out split.
        n_tokens: number of tokens to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.

    Source: Ferrao et al. 2025 (mean magnitude); Gao et al. 2025, Fig. 10 (kurtosis).
    """
    from wirework.model import load

    model = load(model)
    return Sparsity.of(model.transformer, evaluate_text(model, text, n_tokens))


@torch.no_grad()
def mean_abs_weight(transformer: "Transformer", *, embeddings: bool = False) -> float:
    """Return the mean magnitude of a model's parameters without the bigram table.

    Args:
        transformer: the model.
        embeddings: include token embedding, positions and unembedding, a tied one twice.
    """
    left_out = {"bigram"} if embeddings else {"bigram", *_EMBEDDINGS}
    parameters = transformer.named_parameters(remove_duplicate=False)
    counted = [parameter for name, parameter in parameters if name not in left_out]
    total = sum(float(parameter.abs().sum(dtype=torch.float64)) for parameter in counted)
    return total / sum(parameter.numel() for parameter in counted)


@torch.no_grad()
def gate_masks(
    transformer: "Transformer", gates: "Gates", batches: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gates' masks on text, computed from the clean stream alone.

    Args:
        transformer: the model.
        gates: the model's gates.
        batches: each (B, T) int64.

    Yields:
        Masks of attention units (B, T, L, A) and of neurons (B, T, L, M).
    """
    sites = [f"{layer}.resid_in" for layer in range(transformer.config.n_layer)]
    device = transformer.embed.weight.device
    for tokens in batches:
        with transformer.recorded(sites) as values:
            final = transformer.state(tokens.to(device))
        masks = gates.masks([values[site] for site in sites], final)
        yield (
            torch.stack([layer.attention for layer in masks], 2),
            torch.stack([layer.all_neurons for layer in masks], 2),
        )


def gate_use(masks: Iterable[tuple[Tensor, Tensor]]) -> GateUse:
    """Count how often each unit is on, one batch at a time.

    Args:
        masks: pairs of masks, of attention units (B, T, L, A) and of neurons (B, T, L, M), as
            `gate_masks` yields them; a unit is on where its entry is not 0.

    Raises:
        InputError: there are no masks.

    Source: Ferrao et al. 2025 (live fraction, dead units).
    """
    counts: list[Tensor] = []
    n_tokens = 0
    for pair in masks:
        n_on = [mask.flatten(0, 1).count_nonzero(0) for mask in pair]  # (L, units) each
        counts = [a + b for a, b in zip(counts, n_on, strict=True)] if counts else n_on
        n_tokens += pair[0].shape[:2].numel()
    if not n_tokens:
        raise InputError("the use of gates needs at least one batch of masks")
    attention, neurons = (count.double() / n_tokens for count in counts)
    dead = [tuple(int(n) for n in (count == 0).sum(1)) for count in counts]
    return GateUse(
        attention_live_fraction=tuple(map(tuple, attention.tolist())),
        neuron_live_fraction=tuple(map(tuple, neurons.tolist())),
        live_fraction=float(torch.cat([attention.flatten(), neurons.flatten()]).mean()),
        dead_attention_units=dead[0],
        dead_neurons=dead[1],
        dead_units=sum(map(sum, dead)),
        n_tokens=n_tokens,
    )
