"""What steering does to text that has nothing to do with the task.

There is no other context to take a difference from, so that the size of the change is the largest
difference of a prompt, averaged over the prompts, at every token.
Shapes: P pairs (two prompts each), T tokens, M nodes, D width of the model that is steered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.bridges.directions import ReadingNode
from wirework.bridges.perturbations import adding, without
from wirework.circuits.masking.training_text import disjoint_windows, windows_at
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

    The change is the mean over prompts of the largest difference, in both directions. Values are
    means over tokens, and over the two directions of the change.
    """

    n_tokens: int
    loss: float
    """Next-token loss of the unchanged model, in nats."""
    loss_steered: float
    loss_random: float
    """The same along a random direction of equal length."""
    kl_steered: float
    """KL divergence from the unchanged model's predictions to the steered ones, in nats."""
    kl_random: float


@torch.no_grad()
@unchanged_weights()
def text_effect(
    transformer: Transformer,
    nodes: Sequence[ReadingNode],
    changes: Tensor,
    directions: Tensor,
    text: "Tokens",
    generator: torch.Generator,
) -> TextEffect:
    """Measure the effect of a change on held-out text.

    Args:
        transformer: the model that is steered.
        nodes: M nodes.
        changes: (M, 2P, T) differences of the nodes on the task.
        directions: (M, D).
        text: held-out text.
        generator: draws the random direction.
    """
    sizes = changes.abs().amax(2).mean(1)[:, None]  # (M, 1)
    drawn = torch.randn(directions.shape, generator=generator)
    random = drawn / drawn.norm(dim=1, keepdim=True) * directions.norm(dim=1, keepdim=True)
    added = [sign * sizes * along for along in (directions, random) for sign in (1, -1)]
    sums, n_tokens = torch.zeros(3, 2, dtype=torch.float64), 0
    for tokens, targets in _batches(transformer, text):
        before = transformer(tokens).double().log_softmax(-1)
        sums[0, 0] -= before.gather(2, targets[..., None]).sum()
        n_tokens += targets.numel()
        for i, one in enumerate(added):
            with transformer.edited(_edits(transformer, nodes, one)):
                after = transformer(tokens).double().log_softmax(-1)
            sums[1, i // 2] -= after.gather(2, targets[..., None]).sum() / 2
            sums[2, i // 2] += (before.exp() * (before - after)).sum() / 2
    (loss, _), (steered, by_random), (kl, kl_random) = (sums / n_tokens).tolist()
    return TextEffect(n_tokens, loss, steered, by_random, kl, kl_random)


@torch.no_grad()
@unchanged_weights()
def loss_without(
    transformer: Transformer, location: int, direction: Tensor, text: "Tokens"
) -> float:
    """Return the next-token loss on held-out text with a direction projected out, in nats.

    Args:
        transformer: the model.
        location: number of the residual location.
        direction: (D,).
        text: held-out text.
    """
    site = location_sites(transformer.config.n_layer)[location]
    total, n_tokens = 0.0, 0
    with transformer.edited({site: without(direction)}):
        for tokens, targets in _batches(transformer, text):
            total += float(transformer.loss(tokens, targets)) * targets.numel()
            n_tokens += targets.numel()
    return total / n_tokens


def _batches(transformer: Transformer, text: "Tokens") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tokens and targets, (B, T) each, evenly spread over a text."""
    n_ctx = min(transformer.config.n_ctx, text.n_tokens - 1)
    starts, _ = disjoint_windows(text, n_ctx + 1, -(-_TOKENS // n_ctx))
    for windows in windows_at(text, starts, n_ctx + 1):
        yield windows[:, :-1], windows[:, 1:]


def _edits(
    transformer: Transformer, nodes: Sequence[ReadingNode], added: Tensor
) -> dict[str, Edit]:
    """Return the edits that add the rows of (M, D) at the locations of the nodes."""
    sites = location_sites(transformer.config.n_layer)
    by_site: dict[str, Tensor] = {}
    for node, row in zip(nodes, added, strict=True):
        site = sites[node.location]
        by_site[site] = by_site.get(site, torch.zeros_like(row)) + row
    return {site: adding(row) for site, row in by_site.items()}
