"""Predict the value of a node from the tokens so far: a linear model fitted on some pairs.

A head that averages mixes what it reads at all tokens, so that no single token sets its output, and
what it reads at few of them fades with the position. Each token adds three terms to a node's value:
one at the token itself, one at the next token, and one for its share of the prompt so far. Four
more terms follow the position. All are fitted by ridge regression.
Shapes: P pairs (two prompts each), T tokens, U distinct tokens, k nodes of a site, F = 3U + 4
features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from wirework.circuits.reading.places import Recorded
from wirework.summaries import Report, absent

if TYPE_CHECKING:
    from wirework.data import Tokenizer

Source = Literal["token", "before", "share", "position"]
"""Where terms come from: the `token` itself, the token `before` it, the `share` of each token in
the prompt up to here, or the `position`, the number of tokens up to here."""

_SOURCES: tuple[Source, ...] = ("token", "before", "share", "position")
_N_OF_POSITION = 4
"""Features of the position."""

_PENALTY = 1.0
"""Ridge penalty on each squared term; a share of 1 and a single token count as 1."""
_PENALTY_OF_POSITION = 1e-3
"""The same for the few terms of the position, only so that the fit is always unique."""
_ONE_LATER = (0, 0, 1, 0)
"""Padding that moves values (..., T, k) to the next token."""
_SHOWN = 2
"""Tokens named at each end."""


@dataclass(frozen=True, repr=False)
class PastSource(Report):
    """The source that explains most of a node's value, and the tokens that matter in it."""

    source: Source
    highest: tuple[str, ...]
    """Tokens that raise the node most over the prompts, its largest positive effects."""
    lowest: tuple[str, ...]
    """Tokens that lower it most."""
    later: Literal["higher", "lower"] | None = absent()
    """Whether the position raises or lowers the node towards the end of the prompt; absent for
    other sources, which name tokens."""


@dataclass(frozen=True)
class PastTokens:
    """The linear model of all nodes of a circuit, fitted on recorded pairs."""

    recorded: Recorded

    @cached_property
    def _known(self) -> Tensor:
        """(U,) int64, the tokens of the pairs, ascending."""
        known: Tensor = self.recorded.batch.tokens[self.recorded.in_prompt].cpu().unique()  # type: ignore[no-untyped-call]
        return known

    @property
    def _sizes(self) -> list[int]:
        """Number of features of each source."""
        return [*[len(self._known)] * 3, _N_OF_POSITION]

    @cached_property
    def _factor(self) -> Tensor:
        """(F, F) float64, Cholesky factor of the Gram matrix of the features."""
        n_tokens = sum(self._sizes[:-1])
        penalties = torch.full((sum(self._sizes),), _PENALTY, dtype=torch.float64)
        penalties[n_tokens:] = _PENALTY_OF_POSITION
        gram = penalties.diag()
        for features in self._features():
            gram += features.T @ features
        factor: Tensor = torch.linalg.cholesky(gram)
        return factor

    def terms(self, site: str) -> Tensor:
        """Return the fitted terms of the nodes of a site, (F, k) float64."""
        values = self.recorded.values[site].cpu().double() - self._mean(site)
        products = torch.zeros(len(self._factor), values.shape[-1], dtype=torch.float64)
        for row, features in zip(values, self._features(), strict=True):
            products += features.T @ row[: len(features)]
        return torch.cholesky_solve(products, self._factor)

    def predicted(self, site: str, tokens: Tensor) -> Tensor:
        """Return (R, T, k), the value of each node that the tokens so far predict.

        Args:
            site: the site.
            tokens: (R, T) int64, prompts. A token that the fitted pairs do not hold adds nothing.
        """
        like = self.recorded.values[site]
        *by_token, of_position = torch.split(self.terms(site).to(like), self._sizes)
        index, found = self._index(tokens)
        own, before, share = (terms[index] * found[..., None] for terms in by_token)
        counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        by_position = _position_features(tokens.shape[1]).to(like) @ of_position
        mean = self._mean(site).to(like)
        shifted, averaged = pad(before, _ONE_LATER)[:, :-1], share.cumsum(1) / counts
        predicted: Tensor = mean + own + shifted + averaged + by_position
        return predicted

    def strongest(self, site: str, number: int, tokenizer: "Tokenizer") -> PastSource:
        """Return the source whose terms vary the node most over the prompts.

        Args:
            site: the site.
            number: index among the kept nodes of the site.
            tokenizer: names tokens.
        """
        terms = self.terms(site)[:, number]
        weighted = torch.cat([features * terms for features in self._features()])
        parts = torch.split(weighted, self._sizes, 1)
        strongest = max(range(len(parts)), key=lambda source: float(parts[source].sum(1).var()))
        source = _SOURCES[strongest]
        if source == "position":
            ends = _position_features(self.recorded.batch.tokens.shape[1])[[0, -1]]
            rise = float(ends.diff(dim=0) @ terms[-_N_OF_POSITION:])
            return PastSource(source, (), (), "higher" if rise > 0 else "lower")
        effects = parts[strongest].std(0) * torch.split(terms, self._sizes)[strongest].sign()
        order = effects.argsort()
        highest = [one for one in order.flip(0)[:_SHOWN].tolist() if effects[one] > 0]
        lowest = [one for one in order[:_SHOWN].tolist() if effects[one] < 0]
        return PastSource(source, self._named(highest, tokenizer), self._named(lowest, tokenizer))

    def _named(self, numbers: Sequence[int], tokenizer: "Tokenizer") -> tuple[str, ...]:
        return tuple(tokenizer.token(int(self._known[number])) for number in numbers)

    def _mean(self, site: str) -> Tensor:
        return self.recorded.averages(site).cpu().double()

    def _index(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return (R, T) each: rows of the terms, and whether the fitted pairs hold the token."""
        known = self._known.to(tokens.device)
        index = torch.searchsorted(known, tokens.contiguous()).clamp(max=len(known) - 1)
        return index, known[index] == tokens

    def _features(self) -> Iterator[Tensor]:
        """Yield for each prompt (length, F) float64, the features of each source in order."""
        lengths = self.recorded.in_prompt.sum(1).tolist()
        for row, length in zip(self.recorded.batch.tokens.cpu(), lengths, strict=True):
            index, _ = self._index(row[:length])
            own = one_hot(index, len(self._known)).double()
            share = own.cumsum(0) / torch.arange(1, length + 1)[:, None]
            yield torch.cat([own, pad(own, _ONE_LATER)[:-1], share, _position_features(length)], 1)


def _position_features(length: int) -> Tensor:
    """Return (length, 4) float64: functions of the number of tokens up to each position."""
    n_tokens = torch.arange(1, length + 1, dtype=torch.float64)
    return torch.stack([1 / n_tokens, n_tokens.rsqrt(), n_tokens.log(), n_tokens.log() ** 2], 1)
