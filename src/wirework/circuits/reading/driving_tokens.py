"""Which tokens of the training text drive a node: its mean value at each token, in the whole model.

Shapes: B windows, T tokens, V vocabulary, k nodes of a site.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.summaries import Report

if TYPE_CHECKING:
    from wirework.data import Tokenizer
    from wirework.nn import Transformer

_LEAST_PLACES = 5
"""Fewest occurrences of a token in the text read for it to be listed."""
_SHOWN = 5
"""Tokens listed at each end."""


@dataclass(frozen=True, repr=False)
class TokenValue(Report):
    """A token and the mean value of a node at it."""

    token: str
    value: float
    n_places: int


@dataclass(frozen=True, repr=False)
class DrivingTokens(Report):
    """How a node's value depends on the token at which it is read."""

    highest: tuple[TokenValue, ...]
    """Tokens with the highest mean values, highest first."""
    lowest: tuple[TokenValue, ...]
    """Tokens with the lowest mean values, lowest first."""
    explained: float
    """Share of the node's variance over tokens of text that the current token explains: the
    coefficient of determination of the mean value at each token, on the text it was fitted on."""
    n_tokens: int
    """Tokens of text read."""


@torch.no_grad()
def driving_tokens(
    transformer: "Transformer",
    windows: Iterable[Tensor],
    channels: Mapping[str, Tensor],
    tokenizer: "Tokenizer",
) -> dict[str, tuple[DrivingTokens, ...]]:
    """Return site to the driving tokens of each of its channels.

    Args:
        transformer: the whole model; nothing is ablated.
        windows: training text, each (B, T) int64.
        channels: site to (k,) int64, the channels to read.
        tokenizer: the model's tokeniser.
    """
    vocab_size = tokenizer.vocab_size
    sums = {
        site: torch.zeros(vocab_size, len(nodes), dtype=torch.float64)
        for site, nodes in channels.items()
    }
    squares = {
        site: torch.zeros(len(nodes), dtype=torch.float64) for site, nodes in channels.items()
    }
    counts = torch.zeros(vocab_size, dtype=torch.int64)
    for tokens in windows:
        ids = tokens.flatten()
        counts += torch.bincount(ids, minlength=vocab_size)
        with transformer.recorded(list(channels)) as values:
            transformer.state(tokens.to(transformer.embed.weight.device))
        for site, nodes in channels.items():
            flat = values[site][..., nodes].flatten(0, 1).double().cpu()
            sums[site].index_add_(0, ids, flat)
            squares[site] += flat.square().sum(0)
    return {site: _of_site(sums[site], squares[site], counts, tokenizer.token) for site in channels}


def _of_site(
    sums: Tensor, squares: Tensor, counts: Tensor, text_of: Callable[[int], str]
) -> tuple[DrivingTokens, ...]:
    """Return the driving tokens of each channel.

    Args:
        sums: (V, k), sums of the values at each token.
        squares: (k,), sums of the squared values over all tokens.
        counts: (V,) occurrences of each token.
        text_of: maps the id of a token to its text.
    """
    n_tokens = int(counts.sum())
    means = sums / counts.clamp(min=1)[:, None]
    total = squares - sums.sum(0) ** 2 / n_tokens
    within = squares - (means * sums).sum(0)
    explained = torch.where(total > 1e-12 * squares, 1 - within / total, 0.0)
    listed = (counts >= _LEAST_PLACES).nonzero().flatten()

    def shown(node: int, *, descending: bool) -> tuple[TokenValue, ...]:
        order = means[listed, node].sort(descending=descending, stable=True).indices[:_SHOWN]
        return tuple(
            TokenValue(text_of(token), float(means[token, node]), int(counts[token]))
            for token in listed[order].tolist()
        )

    return tuple(
        DrivingTokens(
            shown(node, descending=True),
            shown(node, descending=False),
            float(explained[node]),
            n_tokens,
        )
        for node in range(sums.shape[1])
    )
