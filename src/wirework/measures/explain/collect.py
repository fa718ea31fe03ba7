"""One pass over text for all neurons: the most activating and some random excerpts of each.

Memory does not grow with the text: `RankedExcerpts` keeps K excerpts per neuron, ranked by the peak
activation or by a random number.
Shapes: B excerpts, T tokens, N neurons, K excerpts kept of each.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.errors import InputError, number_of
from wirework.measures.activations import site_values
from wirework.measures.explain.record import Excerpt, Neuron
from wirework.nn import Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights

if TYPE_CHECKING:
    from wirework.data import Tokens

OnRead = Callable[[int], None]
"""Called with the number of excerpts read since the last call."""

_BATCH = 64  # excerpts per forward pass
_VALUES = 1 << 24  # most activations held of one forward pass


class RankedExcerpts:
    """The K excerpts of each neuron that rank highest so far; the first one wins a tie.

    Args:
        count: K.
        n_neurons: N.
        length: T.
    """

    def __init__(self, count: int, n_neurons: int, length: int) -> None:
        self.rank = torch.full((count, n_neurons), -torch.inf)
        self.start = torch.full((count, n_neurons), -1)
        self.values = torch.zeros(count, n_neurons, length)

    def update(self, rank: Tensor, starts: Tensor, values: Tensor) -> None:
        """Add excerpts, and keep the K of each neuron that rank highest.

        Args:
            rank: (B, N) numbers to rank by, higher is kept.
            starts: (B,) first token of each excerpt in the text.
            values: (B, N, T) activations.
        """
        rank = torch.cat([self.rank, rank])
        rank, order = rank.sort(dim=0, descending=True, stable=True)
        order = order[: len(self.rank)]
        self.rank = rank[: len(self.rank)]
        starts = torch.cat([self.start, starts[:, None].expand(-1, values.shape[1])])
        self.start = starts.gather(0, order)
        places = order[..., None].expand(-1, -1, values.shape[2])
        self.values = torch.cat([self.values, values]).gather(0, places)

    def excerpts(self, number: int, tokens: "Tokens") -> list[Excerpt]:
        """Return the excerpts of neuron `number`, highest first; at most K."""
        length = self.values.shape[2]
        return [
            Excerpt(start, tuple(tokens.slice(start, length).tolist()), tuple(values))
            for start, values in zip(
                self.start[:, number].tolist(), self.values[:, number].tolist(), strict=True
            )
            if start >= 0
        ]


@dataclass
class CollectedExcerpts:
    """Result of one pass over a split, for all neurons."""

    top: list[list[Excerpt]]
    """For each neuron, its most activating excerpts, highest first."""
    random: list[list[Excerpt]]
    """For each neuron, random excerpts of its own that are not in `top`."""
    mean: list[float]
    """For each neuron, its mean activation."""
    live_fraction: list[float]
    """For each neuron, the share of tokens with an activation above 0."""
    starts: list[int] = field(default_factory=list)
    """First tokens of the excerpts that were read."""


@torch.no_grad()
@unchanged_weights()
def stream(
    transformer: Transformer,
    neurons: Sequence[Neuron],
    tokens: "Tokens",
    starts: Sequence[int],
    length: int,
    *,
    n_top: int,
    n_random: int,
    seed: int,
    on_read: OnRead = lambda _: None,
) -> CollectedExcerpts:
    """Read excerpts once and keep the top and random ones of each neuron.

    Args:
        transformer: the model; each excerpt is a context of its own.
        neurons: neurons at any sites.
        tokens: the split.
        starts: first tokens of the excerpts.
        length: tokens of an excerpt.
        n_top: excerpts with the highest peak to keep, per neuron.
        n_random: random excerpts to keep, drawn for each neuron.
        seed: seed of the random excerpts.
        on_read: called as excerpts are read.
    """
    generator = torch.Generator().manual_seed(seed)
    top = RankedExcerpts(n_top, len(neurons), length)
    # n_top more than needed: so many may turn out to be among the top ones.
    drawn = RankedExcerpts(n_top + n_random, len(neurons), length)
    total = torch.zeros(len(neurons), dtype=torch.float64)
    n_above = torch.zeros(len(neurons), dtype=torch.float64)
    step = max(1, min(_BATCH, _VALUES // (length * len(neurons))))
    for first in range(0, len(starts), step):
        batch_starts = torch.tensor(starts[first : first + step])
        excerpts = [
            torch.from_numpy(tokens.slice(i, length).astype("int64")) for i in batch_starts.tolist()
        ]
        values = activations(transformer, neurons, torch.stack(excerpts)).transpose(
            1, 2
        )  # (B, N, T)
        top.update(values.amax(2), batch_starts, values)
        drawn.update(torch.rand(values.shape[:2], generator=generator), batch_starts, values)
        total += values.sum((0, 2), dtype=torch.float64)
        n_above += (values > 0).sum((0, 2))
        on_read(len(batch_starts))
    n_read = len(starts) * length
    tops = [top.excerpts(i, tokens) for i in range(len(neurons))]
    others = [_others(drawn.excerpts(i, tokens), tops[i], n_random) for i in range(len(neurons))]
    mean, live = (total / n_read).tolist(), (n_above / n_read).tolist()
    return CollectedExcerpts(tops, others, mean, live, list(starts))


def activations(transformer: Transformer, neurons: Sequence[Neuron], tokens: Tensor) -> Tensor:
    """Return the activations of neurons on tokens (B, T) int64: (B, T, N) float32 on the CPU."""
    sites = {neuron.site for neuron in neurons}
    ((_, values),) = site_values(transformer, sites, [tokens])
    values_by_neuron = torch.empty(*tokens.shape, len(neurons))
    for site, site_value in values.items():
        places = [i for i, neuron in enumerate(neurons) if neuron.site == site]
        channels = torch.tensor([neurons[i].index for i in places], device=site_value.device)
        values_by_neuron[..., places] = site_value[..., channels].float().cpu()
    return values_by_neuron * torch.tensor([-1.0 if neuron.negated else 1.0 for neuron in neurons])


def _others(drawn: list[Excerpt], top: list[Excerpt], count: int) -> list[Excerpt]:
    top_starts = {excerpt.start for excerpt in top}
    return [excerpt for excerpt in drawn if excerpt.start not in top_starts][:count]


def distinct_starts(
    tokens: "Tokens", length: int, count: int, taken: set[tuple[int, ...]]
) -> list[int]:
    """Return the first tokens of at most `count` excerpts, spread over a split.

    No excerpt overlaps another or repeats its tokens.

    Args:
        tokens: the split.
        length: tokens of an excerpt.
        count: excerpts to look at; text that repeats gives fewer.
        taken: tokens of excerpts that may not be taken again; new ones are added.

    Raises:
        InputError: the split is shorter than two excerpts.
    """
    windows = tokens.n_tokens // length
    if windows < 2:
        raise InputError(
            f"excerpts of {number_of(length, 'token')} need more text than the "
            f"{number_of(tokens.n_tokens, 'token')} of {tokens.name}"
        )
    return list(_new(tokens, length, _spread(windows, count), taken))


def _spread(windows: int, count: int) -> Iterator[int]:
    count = min(windows, count)
    return (i * windows // count for i in range(count))


def _new(
    tokens: "Tokens", length: int, windows: Iterator[int], taken: set[tuple[int, ...]]
) -> Iterator[int]:
    for window in windows:
        excerpt = tuple(tokens.slice(window * length, length).tolist())
        if excerpt not in taken:
            taken.add(excerpt)
            yield window * length
