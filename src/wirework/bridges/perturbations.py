"""Change the residual streams of one model by what a node of the other one tells apart.

The perturbation of a prompt is the difference between the two contexts of its pair at every token,
along the direction of the node.
Shapes: P pairs (two prompts each), T tokens, D width of the model that is changed, V vocabulary.
Source: Gao et al. 2025, App. A.4.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from wirework.bridges.bridged import Bridged
from wirework.bridges.directions import ReadingNode, dense_direction, sparse_reading
from wirework.nn import Edit, Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.residual_locations import location_sites
from wirework.tasks import TokenizedPairs
from wirework.tasks.deciding_tokens import between

Target = Literal["dense", "sparse"]
"""The model that is changed."""
Perturbation = Mapping[int, Tensor]
"""Residual location to (2P, T, D), what is added to the stream there at strength 1."""


def partner_tokens(batch: TokenizedPairs) -> Tensor:
    """Return (2P, T) int64: for each token the position of its partner in the pair's other prompt.

    Tokens that both prompts begin with, or end with, are partners. Between these, tokens are
    matched from the right; those left over take the other prompt's first token there, or the one
    before if it has none. Padding gets 0.
    """
    partners = torch.zeros_like(batch.tokens)
    ends = (batch.last_positions + 1).tolist()
    prompts = [ids[:end] for ids, end in zip(batch.tokens.tolist(), ends, strict=True)]
    for row, own in enumerate(prompts):
        other = prompts[row ^ 1]
        (start, end), (_, other_end) = between(own, other), between(other, own)
        first = max(0, min(start, other_end - 1))  # of the part of the other prompt in between
        shift = len(other) - len(own)
        positions = [
            place if place < start else place + shift if place >= end else max(first, place + shift)
            for place in range(len(own))
        ]
        partners[row, : len(own)] = torch.tensor(positions)
    return partners


@torch.no_grad()
@unchanged_weights()
def differences(
    bridged: Bridged, nodes: Sequence[ReadingNode], batch: TokenizedPairs, target: Target
) -> Tensor:
    """Return the change of each node that makes a prompt's value that of the other prompt.

    Args:
        bridged: models and bridges.
        nodes: M nodes.
        batch: the pairs.
        target: the model to change. `dense`: differences of the sparse model's node, after the
            norm; `sparse`: what the encoder reads of the dense model's difference, before the norm.

    Returns:
        (M, 2P, T), 0 at padding.
    """
    partners, rows = partner_tokens(batch), torch.arange(len(batch.tokens)) ^ 1
    inside = torch.arange(batch.tokens.shape[1]) <= batch.last_positions[:, None].cpu()

    def difference(values: Tensor) -> Tensor:
        """Return the partner's value minus the own one, of (2P, T, ...)."""
        index = partners.view(*partners.shape, *[1] * (values.dim() - 2)).expand_as(values)
        return values[rows].gather(1, index) - values

    if target == "dense":
        sites = list(dict.fromkeys(node.site for node in nodes))
        _, values = bridged.sparse.transformer.record(batch.tokens, sites)
        found = [difference(values[node.site][..., node.index]) for node in nodes]
    else:
        sites = location_sites(bridged.dense.config.n_layer)
        _, values = bridged.dense.transformer.record(batch.tokens, sites)
        found = [
            difference(values[sites[node.location]]) @ sparse_reading(bridged, node)
            for node in nodes
        ]
    return torch.stack(found) * inside.to(found[0])


def directions_in(
    bridged: Bridged, nodes: Sequence[ReadingNode], target: Target, sizes: Tensor
) -> Tensor:
    """Return (M, D), the direction of each node in the model that is changed.

    Args:
        bridged: models and bridges.
        nodes: M nodes.
        target: the model to change.
        sizes: result of `stream_sizes` for the sparse model; only for the dense model.
    """
    if target == "dense":
        return torch.stack([dense_direction(bridged, node, sizes) for node in nodes])
    width = bridged.sparse.config.d_model
    return torch.eye(width)[[node.index for node in nodes]]


def perturbation(
    nodes: Sequence[ReadingNode], changes: Tensor, directions: Tensor
) -> dict[int, Tensor]:
    """Return the sum of the perturbations of some nodes, by location.

    Args:
        nodes: M nodes.
        changes: (M, 2P, T) of `differences`.
        directions: (M, D).
    """
    by_location: dict[int, Tensor] = {}
    for node, change, direction in zip(nodes, changes, directions, strict=True):
        added = change[..., None] * direction
        so_far = by_location.get(node.location)
        by_location[node.location] = added if so_far is None else so_far + added
    return by_location


@torch.no_grad()
@unchanged_weights()
def answer_probabilities(
    transformer: Transformer, batch: TokenizedPairs, added: Perturbation, strength: float
) -> Tensor:
    """Return (2P, 2) float64: probability of the right answer and of the other one.

    Probabilities are over the whole vocabulary, at the last token of each prompt.

    Args:
        transformer: the model that is changed.
        batch: the pairs.
        added: what is added to its streams at strength 1.
        strength: factor.
    """
    sites = location_sites(transformer.config.n_layer)
    edits = {sites[location]: adding(strength * value) for location, value in added.items()}
    rows = torch.arange(len(batch.tokens), device=batch.tokens.device)
    with transformer.edited(edits):
        state = transformer.state(batch.tokens)[rows, batch.last_positions]
    logits = transformer.logits_of(state, batch.tokens[rows, batch.last_positions])
    return logits.double().softmax(-1).gather(1, batch.answers)


def of_two(probabilities: Tensor) -> Tensor:
    """Return (2P,), the probability of the other answer among the two.

    Args:
        probabilities: (2P, 2) of the right answer and the other one.
    """
    return probabilities[:, 1] / probabilities.sum(1)


@torch.no_grad()
@unchanged_weights()
def probabilities_without(
    transformer: Transformer,
    batch: TokenizedPairs,
    location: int,
    direction: Tensor,
    mean: Tensor,
) -> Tensor:
    """Return `answer_probabilities` with the stream at its mean along a direction, at all tokens.

    Args:
        transformer: the model.
        batch: the pairs.
        location: number of the residual location.
        direction: (D,), of any length.
        mean: (D,), the mean of the stream at this location.
    """
    site = location_sites(transformer.config.n_layer)[location]
    with transformer.edited({site: without(direction, mean)}):
        return answer_probabilities(transformer, batch, {}, 0.0)


def without(direction: Tensor, mean: Tensor) -> Edit:
    """Return the edit of a site that sets it to its mean (D,) along a direction (D,)."""
    unit = direction / direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    return lambda x: x - ((x - mean) @ unit)[..., None] * unit


def adding(value: Tensor) -> Edit:
    """Return the edit of a site that adds a value to it."""
    return lambda x: x + value
