"""The embedded tokens that a circuit reads: a few that are drawn, the rest folded by their reader.

A residual channel is read wherever a token's embedding has an entry in it, so that a circuit of a
few dozen nodes reads hundreds of tokens. Embedding entries are no edges of the circuit (Gao et al.
2025, sec. 2): none is pruned, and here none is left out, only put together.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from wirework.circuit_format import Document, IoEdge

MOST = 32
"""Tokens that are drawn one by one."""


class Inputs(NamedTuple):
    """What the bottom row of the drawing is made of."""

    tokens: list[tuple[str, int]]
    """Text and id of each token that is drawn, by id."""
    edges: list[IoEdge]
    """Their embedding entries."""
    folded: dict[int, list[IoEdge]]
    """Node to the other tokens' entries that it reads, strongest first."""


def inputs_of(document: Document, most: int = MOST) -> Inputs:
    """Choose the tokens to draw: each node's strongest first, then each one's second, and so on.

    Args:
        document: the circuit.
        most: so many tokens are drawn; all, where there are no more.
    """
    readers: dict[int, list[IoEdge]] = defaultdict(list)
    edges = [edge for edge in document.io_edges if edge.target is not None]
    for edge in sorted(edges, key=_strength):
        readers[edge.target or 0].append(edge)
    drawn = set(_first_tokens(readers.values(), most))
    shown = [edge for edge in edges if edge.token_id in drawn]
    folded = {
        node: rest
        for node, entries in sorted(readers.items())
        if (rest := [edge for edge in entries if edge.token_id not in drawn])
    }
    tokens = {edge.token_id: edge.token or "" for edge in shown}
    return Inputs([(tokens[number], number) for number in sorted(tokens)], shown, folded)


def _first_tokens(entries: Iterable[list[IoEdge]], most: int) -> list[int]:
    """Return ids, those that lead some node's list before those that come second in one."""
    found: dict[int, None] = {}
    for rank in zip_longest(*entries):
        for edge in sorted((edge for edge in rank if edge), key=_strength):
            found.setdefault(edge.token_id)
    return list(found)[:most]


def _strength(edge: IoEdge) -> tuple[float, int]:
    """Sort by falling size of the weight, ties by token."""
    return -abs(edge.weight), edge.token_id
