"""How much of a model is there and in use: weights, neurons, gates.

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

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model
    from wirework.nn import Transformer
    from wirework.nn.gates import Gates

_EMBEDDINGS = ("embed.weight", "positions.weight", "unembed.weight")


@dataclass(frozen=True)
class Sparsity:
    """Sizes of a model's weights and how many of its neurons are in use."""

    mean_abs_weight: float
    """Mean magnitude of all parameters but the embeddings: the token embedding, the positions and
    the unembedding, tied or not, are left out, and the bigram table, which is one more of them."""
    mean_abs_weight_embedded: float
    """The same with token embedding, positions and unembedding (tied: a second time), still without
    the bigram table. The published figures are of this kind (docs/measures.md)."""
    weight_l0: int
    """Nonzero entries of all matrices and biases, embedding and unembedding included."""
    weight_l0_fraction: float
    """Their share."""
    dead_neurons: int
    """MLP neurons that are exactly 0 at every token read. GELU without AbsTopK has none."""
    dead_neurons_by_layer: tuple[int, ...]
    """The same, layer by layer."""
    n_tokens: int
    """Tokens read."""

    @classmethod
    def of(cls, transformer: "Transformer", stats: TextStats) -> "Sparsity":
        """Count a model's weights, and take what one pass saw of its neurons."""
        entries, nonzero = transformer.weight_counts()
        return cls(
            mean_abs_weight=mean_abs_weight(transformer),
            mean_abs_weight_embedded=mean_abs_weight(transformer, embeddings=True),
            weight_l0=nonzero,
            weight_l0_fraction=nonzero / entries,
            dead_neurons=sum(stats.dead_neurons_by_layer),
            dead_neurons_by_layer=stats.dead_neurons_by_layer,
            n_tokens=stats.n_tokens,
        )


@dataclass(frozen=True)
class GateUse:
    """How often the gates of a self-ablating model choose each unit."""

    attention_live_fraction: tuple[tuple[float, ...], ...]
    """Layer by layer, the share of tokens at which each attention unit is on."""
    neuron_live_fraction: tuple[tuple[float, ...], ...]
    """The same of neurons."""
    live_fraction: float
    """Mean over all units; k over the number of units where the gates take exactly k."""
    dead_attention_units: tuple[int, ...]
    """Layer by layer, how many attention units are on at no token."""
    dead_neurons: tuple[int, ...]
    """The same of neurons."""
    dead_units: int
    """All of both."""
    n_tokens: int
    """Tokens looked at."""


def sparsity(model: "Model | str | Path", text: "Tokens", n_tokens: int = 65_536) -> Sparsity:
    """Measure a model's weights, and its neurons on text.

    Args:
        model: the model; a path is loaded.
        text: tokens, of the held-out split as a rule.
        n_tokens: how many to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.

    Source: Ferrao et al. 2025 (mean magnitude).
    """
    from wirework.model import load

    model = load(model)
    return Sparsity.of(model.transformer, evaluate_text(model, text, n_tokens))


@torch.no_grad()
def mean_abs_weight(transformer: "Transformer", *, embeddings: bool = False) -> float:
    """Return the mean magnitude of a model's parameters, the bigram table left out.

    Args:
        transformer: the model.
        embeddings: count token embedding, positions and unembedding too, a tied one twice.
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
    """Yield what gates choose on text, without the ablated stream.

    Args:
        transformer: the model.
        gates: of it.
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
        masks: of attention units (B, T, L, A) and of neurons (B, T, L, M), as `gate_masks` yields
            them; a unit is on where its entry is not 0.

    Raises:
        InputError: there is none.

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
