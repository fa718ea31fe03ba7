"""What steering does to text that has nothing to do with the task.

There is no other context to take a difference from. What is added at every token is the mean over
prompts of what steering adds at the token of a prompt where it adds most, with the sign of first
prompts, and minus that.
Shapes: P pairs (two prompts each), T tokens, D width of the model that is steered.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.bridges.held_out_text import text_batches
from wirework.bridges.perturbations import Perturbation, adding, without
from wirework.nn import Edit, Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.residual_locations import location_sites
from wirework.summaries import Report

if TYPE_CHECKING:
    from wirework.data import Tokens

_TOKENS = 8192
"""Tokens of held-out text."""


@dataclass(frozen=True, repr=False)
class TextEffect(Report):
    """Effect on held-out text of the change at strength 1 at every token.

    Values are means over tokens, and over the change and its opposite.
    """

    n_tokens: int
    loss: float
    """Next-token loss of the unchanged model, in nats."""
    loss_steered: float
    loss_random: float
    """The same along one drawn direction at each location, of equal length."""
    kl_steered: float
    """KL divergence from the unchanged model's predictions to the steered ones, in nats."""
    kl_random: float


@torch.no_grad()
@unchanged_weights()
def text_effect(
    transformer: Transformer, added: Perturbation, text: "Tokens", generator: torch.Generator
) -> TextEffect:
    """Measure the effect of a change on held-out text.

    Args:
        transformer: the model that is steered.
        added: what steering adds at strength 1, (2P, T, D) by location.
        text: held-out text.
        generator: draws the random directions.
    """
    typical = typical_change(added)
    random = {
        location: drawn / drawn.norm() * vector.norm()
        for location, vector in typical.items()
        for drawn in (torch.randn(vector.shape, generator=generator),)
    }
    sums, n_tokens = torch.zeros(3, 2, dtype=torch.float64), 0
    for tokens, targets in text_batches(text, [transformer], _TOKENS):
        before = transformer(tokens).log_softmax(-1)
        sums[0, 0] -= before.gather(2, targets[..., None]).double().sum()
        n_tokens += targets.numel()
        for i, change in enumerate((typical, random)):
            for sign in (1, -1):
                with transformer.edited(_edits(transformer, change, sign)):
                    after = transformer(tokens).log_softmax(-1)
                sums[1, i] -= after.gather(2, targets[..., None]).double().sum() / 2
                sums[2, i] += (before.exp() * (before - after)).double().sum() / 2
    (loss, _), (steered, by_random), (kl, kl_random) = (sums / n_tokens).tolist()
    return TextEffect(n_tokens, loss, steered, by_random, kl, kl_random)


def typical_change(added: Perturbation) -> dict[int, Tensor]:
    """Return (D,) by location: what steering adds where it adds most, a mean over prompts.

    The two prompts of a pair change in opposite ways, so that second prompts count negatively.

    Args:
        added: (2P, T, D) by location.
    """
    lengths = torch.stack([value.square().sum(-1) for value in added.values()]).sum(0)  # (2P, T)
    rows = torch.arange(len(lengths))
    signs = 1.0 - 2.0 * (rows % 2)
    largest = lengths.argmax(1)
    return {
        location: (value[rows, largest] * signs[:, None]).mean(0)
        for location, value in added.items()
    }


@torch.no_grad()
@unchanged_weights()
def loss_without(
    transformer: Transformer, location: int, direction: Tensor, mean: Tensor, text: "Tokens"
) -> float:
    """Return the next-token loss on held-out text, the stream at its mean along a direction.

    Args:
        transformer: the model.
        location: number of the residual location.
        direction: (D,).
        mean: (D,), the mean of the stream at this location.
        text: held-out text.

    Returns:
        Nats per token.
    """
    site = location_sites(transformer.config.n_layer)[location]
    total, n_tokens = 0.0, 0
    with transformer.edited({site: without(direction, mean)}):
        for tokens, targets in text_batches(text, [transformer], _TOKENS):
            total += float(transformer.loss(tokens, targets)) * targets.numel()
            n_tokens += targets.numel()
    return total / n_tokens


def _edits(transformer: Transformer, change: Perturbation, sign: int) -> dict[str, Edit]:
    """Return the edits that add a vector (D,) at each location."""
    sites = location_sites(transformer.config.n_layer)
    return {sites[location]: adding(sign * vector) for location, vector in change.items()}
