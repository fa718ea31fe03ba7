"""What a node of a circuit tells apart: its values in the two contexts of a pair."""

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Self

from torch import Tensor

from wirework.circuits.reading.places import Place, Recorded
from wirework.summaries import Report

if TYPE_CHECKING:
    from wirework.data import Tokenizer

_SHOWN_TOKENS = 4
"""Tokens of a place by which a node's values are told apart."""
_LEAST_SPREAD = 0.1
"""Share of its range by which a node's means at two tokens must differ to be named."""


@dataclass(frozen=True, repr=False)
class AtToken(Report):
    """Values of a node at one token, in both contexts."""

    token: str
    mean: float
    n: int
    """How often the token is there."""


@dataclass(frozen=True, repr=False)
class Contrast(Report):
    """Values of a node in the two contexts at one place.

    Values are means over pairs, in the units of the node, everything outside the circuit ablated.
    """

    place: Place
    first: float
    """Mean in the first context of the pairs."""
    second: float
    """Mean in the second context."""
    elsewhere: float
    """Mean over all tokens that are not at this place, in both contexts."""
    range: float
    """Highest minus lowest value over all tokens of all prompts."""
    tokens: tuple[AtToken, ...]
    """The most frequent tokens of the place. Where several tokens of a prompt decide, as the two
    types of two variables, means over them may be the same in both contexts."""

    @classmethod
    def of(
        cls, recorded: Recorded, site: str, number: int, place: Place, tokenizer: "Tokenizer"
    ) -> Self:
        """Return the contrast of a node at a place; `number` counts the kept nodes of the site."""
        values = recorded.values[site][..., number]  # (2P, T)
        tokens = values[recorded.in_prompt]
        at_place = recorded.means_at(site, place)[:, number]
        outside = values[recorded.in_prompt & ~recorded.places[place]]
        return cls(
            place=place,
            first=float(at_place[0::2].mean()),
            second=float(at_place[1::2].mean()),
            elsewhere=float((outside if len(outside) else at_place).mean()),
            range=float(tokens.max() - tokens.min()),
            tokens=_by_token(recorded, values, place, tokenizer),
        )

    @property
    def contrast(self) -> float:
        """Difference between the contexts as a share of the range: -1 to 1, 0 for no difference."""
        return (self.first - self.second) / self.range if self.range else 0.0

    @property
    def stands_out(self) -> float:
        """Difference between the place, in both contexts, and other tokens, as such a share."""
        here = (self.first + self.second) / 2
        return (here - self.elsewhere) / self.range if self.range else 0.0

    @property
    def is_mixed(self) -> bool:
        """Whether the means hide what the node tells: they are alike, but tokens differ more."""
        means = [at.mean for at in self.tokens]
        spread = max(means) - min(means)
        return spread > 2 * abs(self.first - self.second) and spread > _LEAST_SPREAD * self.range


def ends_of(
    recorded: Recorded, site: str, number: int, tokenizer: "Tokenizer"
) -> tuple[AtToken, AtToken]:
    """Return the tokens of the prompts at which a node is highest and lowest on average."""
    found = _at_tokens(recorded, recorded.values[site][..., number], recorded.in_prompt, tokenizer)
    return max(found, key=lambda at: at.mean), min(found, key=lambda at: at.mean)


def _by_token(
    recorded: Recorded, values: Tensor, place: Place, tokenizer: "Tokenizer"
) -> tuple[AtToken, ...]:
    """Return the means of a node's values (2P, T) at the most frequent tokens of a place."""
    found = _at_tokens(recorded, values, recorded.places[place], tokenizer)
    return tuple(sorted(found, key=lambda at: -at.n)[:_SHOWN_TOKENS])


def _at_tokens(
    recorded: Recorded, values: Tensor, mask: Tensor, tokenizer: "Tokenizer"
) -> list[AtToken]:
    """Return the means of a node's values (2P, T) at each token that a mask (2P, T) chooses."""
    of_token: dict[int, list[float]] = {}
    ids = recorded.batch.tokens[mask].tolist()
    for token, value in zip(ids, values[mask].tolist(), strict=True):
        of_token.setdefault(token, []).append(value)
    return [AtToken(tokenizer.token(one), fmean(own), len(own)) for one, own in of_token.items()]
