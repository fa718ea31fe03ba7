"""Token patterns that explain a neuron and predict its activation without a model.

A pattern is a token at which the neuron is active and some tokens before it, with gaps, and the
activation there. The longest pattern that matches a place predicts it; without a match the
prediction is 0 (Foote et al. 2023).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wirework.view.visible_text import quoted_label

ANY = -1
"""Gap in a pattern: any token."""

_SHOWN_GROUPS = 8
_SHOWN_TOKENS = 8

Key = tuple[int, ...]
"""Tokens of a pattern in text order, `ANY` for a gap; the neuron is active at the last one."""


@dataclass(frozen=True)
class Pattern:
    """Activation of a neuron at the end of a sequence of tokens."""

    tokens: Key
    activation: float
    """In the neuron's own units."""
    n_places: int = 0
    """Places in the excerpts it was learned from where it was the longest match."""


@dataclass
class _Node:
    pattern: Pattern | None = None
    before: "dict[int, _Node]" = field(default_factory=dict)


class Trie:
    """Prefix tree of reversed patterns, looked up from a token backwards.

    Args:
        patterns: patterns; of two with the same tokens the later counts.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._root = _Node()
        for pattern in patterns:
            node = self._root
            for token in reversed(pattern.tokens):
                node = node.before.setdefault(token, _Node())
            node.pattern = pattern

    def find(self, tokens: Sequence[int], place: int) -> Pattern | None:
        """Return the pattern that matches the token at `place` and those before it.

        Of several the longest counts, then the one with fewest gaps, then the one whose tokens
        are nearest.
        """
        best: Pattern | None = None
        best_rank = (0, 0)
        waiting = [(self._root, place, 0)]
        while waiting:
            node, at, named = waiting.pop()
            length = place - at
            if node.pattern is not None and (length, named) > best_rank:
                best, best_rank = node.pattern, (length, named)
            if at < 0:
                continue
            if (gap := node.before.get(ANY)) is not None:
                waiting.append((gap, at - 1, named))
            if (exact := node.before.get(tokens[at])) is not None:
                waiting.append((exact, at - 1, named + 1))
        return best

    def predict(self, tokens: Sequence[int]) -> list[float]:
        """Return the predicted activation at each token."""
        matches = (self.find(tokens, place) for place in range(len(tokens)))
        return [0.0 if pattern is None else pattern.activation for pattern in matches]


def to_json(patterns: Iterable[Pattern], token: Callable[[int], str]) -> list[dict[str, Any]]:
    """Return patterns as JSON for the file of a neuron; a gap is null."""
    return [
        {
            "tokens": [None if i == ANY else token(i) for i in pattern.tokens],
            "ids": [None if i == ANY else i for i in pattern.tokens],
            "activation": pattern.activation,
            "seen": pattern.n_places,
        }
        for pattern in patterns
    ]


def pattern_text(patterns: Sequence[Pattern], token: Callable[[int], str]) -> str:
    r"""Return the text of patterns, the strongest first: `"·she" after ["·said"|"·asked"]`.

    Patterns with the same context are merged, then those that differ in one token of it. `…` is
    a gap.

    Args:
        patterns: patterns of one neuron.
        token: function from a token to its text.
    """
    if not patterns:
        return "nothing found"
    groups = [_alone(pattern) for pattern in patterns]
    for from_end in range(1, max(map(len, groups)) + 1):
        groups = _merged(groups, from_end)
    groups.sort(key=lambda slots: (-sum(slots[-1].values()), str(slots)))
    phrases = [_said(slots, token) for slots in groups[:_SHOWN_GROUPS]]
    more = len(groups) - len(phrases)
    return "; ".join(phrases) + (f"; and {more} more" if more else "")


_Slots = list[dict[int, float]]
"""For each place of a pattern, the tokens that match there and their weights."""


def _alone(pattern: Pattern) -> _Slots:
    weight = pattern.activation * (1 + pattern.n_places)
    return [{token: weight} for token in pattern.tokens]


def _merged(groups: list[_Slots], from_end: int) -> list[_Slots]:
    """Merge groups that differ only in the slot `from_end` (1: the last)."""
    merged: dict[tuple[tuple[int, ...], ...], _Slots] = {}
    for slots in groups:
        free = len(slots) - from_end
        if free >= 0 and ANY in slots[free]:
            free = -1  # a gap is no token among others
        key = tuple(() if i == free else tuple(sorted(slot)) for i, slot in enumerate(slots))
        target_slots = merged.setdefault(key, [{} for _ in slots])
        for into, slot in zip(target_slots, slots, strict=True):
            for token, weight in slot.items():
                into[token] = into.get(token, 0.0) + weight
    return list(merged.values())


def _said(slots: _Slots, token: Callable[[int], str]) -> str:
    *context, last = [_slot(slot, token) for slot in slots]
    return (
        f"{'any token' if last == '…' else last}{' after ' if context else ''}{' '.join(context)}"
    )


def _slot(tokens: dict[int, float], token: Callable[[int], str]) -> str:
    if ANY in tokens:
        return "…"
    ids = sorted(tokens, key=lambda i: (-tokens[i], i))
    words = [quoted_label(token(i)) for i in ids]
    if len(words) == 1:
        return words[0]
    more = len(words) - _SHOWN_TOKENS
    return f"[{'|'.join(words[:_SHOWN_TOKENS])}{f'|{more} more' if more > 0 else ''}]"
