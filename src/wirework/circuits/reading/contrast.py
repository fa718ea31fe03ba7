"""What a node of a circuit tells apart: its values in the two contexts of a pair."""

from dataclasses import dataclass
from typing import Self

from wirework.circuits.reading.places import Place, Recorded
from wirework.summaries import Report


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

    @classmethod
    def of(cls, recorded: Recorded, site: str, number: int, place: Place) -> Self:
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
