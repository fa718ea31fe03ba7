"""Select the embedded tokens to draw: the few that matter to the task.

A kept residual channel is read for every token with an embedding entry in it, so a circuit of a few
dozen nodes reads hundreds of tokens. Embedding entries are not edges of the circuit (Gao et al.
2025, sec. 2) and the search prunes none of them. The selection is about the drawing only: the
entries that are not drawn are counted, and listed with the node that reads them.

The effect of an entry is its absolute weight times how often its token occurs in the example
prompts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wirework.circuit_format import Document, IoEdge

PER_NODE = 3
"""Entries drawn for each node."""
MOST = 14
"""Tokens drawn, over all nodes."""
MOST_FURTHER = 400
"""Tokens that the page draws on request besides those."""


class Inputs(NamedTuple):
    """Embedded tokens and embedding entries: those that are drawn and all others."""

    tokens: list[tuple[str, int]]
    """Text and id of each token that is drawn, by id."""
    edges: list[IoEdge]
    """Embedding entries that are drawn."""
    folded: dict[int, list[IoEdge]]
    """Node to the other entries that it reads, strongest first."""
    further: list[tuple[str, int]]
    """Text and id of tokens that are drawn on request, those with the largest effect first."""
    deciding: frozenset[int]
    """Ids of tokens in which the two prompts of an example pair differ."""


def inputs_of(document: Document, per_node: int = PER_NODE, most: int = MOST) -> Inputs:
    """Select the embedding entries to draw by their effect in the example prompts.

    Tokens in which the two prompts of a pair differ come first, since no other token can tell the
    answers apart. Tokens that are in no example prompt are drawn only if all tokens are such.

    Args:
        document: the circuit.
        per_node: entries drawn for each node.
        most: tokens drawn, over all nodes.
    """
    edges = [edge for edge in document.io_edges if edge.target is not None]
    effect = _Effect(document.examples.prompts)
    used = [edge for edge in edges if effect.uses[edge.token or ""]]
    candidates = _strongest(used or edges, effect, per_node)
    drawn_tokens = {edge.token_id for edge in effect.ranked_tokens(candidates)[:most]}
    drawn = {_key(edge) for edge in candidates if edge.token_id in drawn_tokens}
    texts = {edge.token_id: edge.token or "" for edge in edges}
    return Inputs(
        [(texts[number], number) for number in sorted(drawn_tokens)],
        [edge for edge in edges if _key(edge) in drawn],
        _by_reader(edge for edge in edges if _key(edge) not in drawn),
        [
            (edge.token or "", edge.token_id)
            for edge in effect.ranked_tokens(edges)
            if edge.token_id not in drawn_tokens
        ][:MOST_FURTHER],
        frozenset(number for number, text in texts.items() if text in effect.deciding),
    )


def _key(edge: IoEdge) -> tuple[int, int | None]:
    return edge.token_id, edge.target


class _Effect:
    """Order of embedding entries and tokens by their effect in the example prompts."""

    def __init__(self, prompts: Sequence[Sequence[str]]) -> None:
        self.deciding = _deciding(prompts)
        self.uses = Counter(token for prompt in prompts for token in prompt)

    def rank(self, edge: IoEdge, weight: float) -> tuple[float, ...]:
        """Return the sort key of an entry with this absolute weight, largest effect first."""
        text = edge.token or ""
        return -self.deciding[text] * weight, -self.uses[text] * weight, -weight, edge.token_id

    def ranked_tokens(self, edges: Iterable[IoEdge]) -> list[IoEdge]:
        """Return one entry for each token, the token with the largest summed effect first."""
        weights: dict[int, float] = defaultdict(float)
        of_token: dict[int, IoEdge] = {}
        for edge in edges:
            weights[edge.token_id] += abs(edge.weight)
            of_token.setdefault(edge.token_id, edge)
        return sorted(of_token.values(), key=lambda edge: self.rank(edge, weights[edge.token_id]))


def _strongest(edges: Iterable[IoEdge], effect: _Effect, per_node: int) -> list[IoEdge]:
    """Return the entries with the largest effect of each node."""
    of_node: dict[int, list[IoEdge]] = defaultdict(list)
    for edge in edges:
        of_node[edge.target or 0].append(edge)
    ranked = (
        sorted(entries, key=lambda edge: effect.rank(edge, abs(edge.weight)))[:per_node]
        for entries in of_node.values()
    )
    return [edge for entries in ranked for edge in entries]


def _by_reader(edges: Iterable[IoEdge]) -> dict[int, list[IoEdge]]:
    """Return entries by the node that reads them, the largest weights first."""
    of_node: dict[int, list[IoEdge]] = defaultdict(list)
    for edge in sorted(edges, key=lambda edge: (-abs(edge.weight), edge.token_id)):
        of_node[edge.target or 0].append(edge)
    return dict(sorted(of_node.items()))


def _deciding(prompts: Sequence[Sequence[str]]) -> Counter[str]:
    """Count the positions at which the two prompts of a pair have different tokens.

    Pairs are the first and second prompt, the third and fourth, and so on. Where the two differ in
    length, surplus tokens are counted regardless of position.
    """
    counts: Counter[str] = Counter()
    for first, second in zip(prompts[::2], prompts[1::2], strict=False):
        if len(first) == len(second):
            differing = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
            counts.update(token for pair in differing for token in pair)
        else:
            counts.update((Counter(first) - Counter(second)) + (Counter(second) - Counter(first)))
    return counts
