"""Small pieces of sentences: code, lists, the names of contexts and places."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wirework.circuits.reading.places import Place, Recorded
from wirework.view.visible_text import label

if TYPE_CHECKING:
    from wirework.data import Tokenizer

_SHOWN_TOKENS = 3
"""Deciding tokens named for each context."""


_PLACES: dict[Place, str] = {
    "deciding": "at the deciding token",
    "between": "between the deciding and the last token",
    "last": "at the last token",
    "rest": "at the other tokens",
}


def code(text: str) -> str:
    """Return a token as inline code with every character visible."""
    shown = label(text)
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words: `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def where(place: Place) -> str:
    """Return a place in words."""
    return _PLACES[place]


@dataclass(frozen=True)
class Contexts:
    """How sentences name the two contexts of a pair and the tokens that decide."""

    first: str
    """`before X` if all first prompts have the answer X, else `in first contexts`."""
    second: str
    deciding: str
    """The most frequent deciding tokens of first prompts against those of second prompts."""

    @classmethod
    def of(cls, recorded: Recorded, tokenizer: "Tokenizer") -> "Contexts":
        """Return the names for a batch of pairs."""
        batch = recorded.batch
        names, tokens = [], []
        for side, order in enumerate(("first", "second")):
            answers = set(batch.answers[side::2, 0].tolist())
            is_one = len(answers) == 1
            answer = code(tokenizer.token(min(answers)))
            names.append(f"before {answer}" if is_one else f"in {order} contexts")
            ids = batch.tokens[side::2][recorded.places["deciding"][side::2]].tolist()
            common = Counter(ids).most_common(_SHOWN_TOKENS)
            tokens.append(", ".join(code(tokenizer.token(token)) for token, _ in common))
        return cls(names[0], names[1], f"{tokens[0]} against {tokens[1]}")
