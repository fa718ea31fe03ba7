"""Range of the values that each node takes on text: the limits of an adversary.

Shapes: N nodes of all sites, S tokens in the activation cache, B sequences, T tokens.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.activation_cache import ActivationCache
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.masking.training_text import disjoint_windows, training_text_of, windows_at
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.nn import Transformer

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

_TOKENS = 65_536
"""Least number of tokens on which the range of a search is measured, if the text has so many. The
check of adversarial ablation uses 1,024 others, whose range is narrower."""


class ValueRange(NamedTuple):
    """Range of the values that each node may take."""

    low: Tensor
    """(N,)."""
    high: Tensor
    """(N,)."""

    def widened(self, values: Tensor) -> "ValueRange":
        """Return the range with further values (N,) in it."""
        return ValueRange(self.low.minimum(values), self.high.maximum(values))


def value_range(
    space: NodeSpace, cache: ActivationCache, means: Mapping[str, Tensor]
) -> ValueRange:
    """Return the range of each node's activations in the cache, widened to its mean.

    Means are measured on more tokens than the cache has, so that the mean of a node that is rarely
    active can lie outside the range in the cache.

    Args:
        space: nodes of the model.
        cache: site to (S, width).
        means: site to (width,).
    """
    values = torch.cat([space.join(cache), space.join(means)[None]])
    return ValueRange(values.amin(0), values.amax(0))


def value_range_of_search(
    model: "Model", data: "Tokens | None", config: PruneConfig
) -> ValueRange | None:
    """Return the range of each node for a search with adversarial ablation; None for others.

    It is measured on the first sample of text, which searches use.

    Args:
        model: the model.
        data: training text; None for the text of the model's run.
        config: settings of the search.

    Raises:
        InputError: there is no text, or it is shorter than a context.
    """
    if config.ablation != "adversarial":
        return None
    text, n_ctx = training_text_of(model, data), model.config.n_ctx
    starts, _ = disjoint_windows(text, n_ctx, -(-_TOKENS // n_ctx))
    return value_range_on(model.transformer, windows_at(text, starts, n_ctx))


@torch.no_grad()
def value_range_on(transformer: Transformer, batches: Iterable[Tensor]) -> ValueRange:
    """Return the lowest and highest activation of every node over all tokens of the batches.

    Args:
        transformer: the model.
        batches: each (B, T) int64.

    Raises:
        InputError: no batch at all.
    """
    space, found = NodeSpace.of(transformer), None
    device = transformer.embed.weight.device
    for tokens in batches:
        with transformer.recorded(list(transformer.node_sites)) as values:
            transformer.state(tokens.to(device))
        lowest, highest = (
            space.join({site: end(value.flatten(0, 1), 0) for site, value in values.items()})
            for end in (torch.amin, torch.amax)
        )
        found = ValueRange(lowest, highest) if found is None else found.widened(lowest)
        found = found.widened(highest)
    if found is None:
        raise InputError("the range of a node's values needs at least one token of training text")
    return found
