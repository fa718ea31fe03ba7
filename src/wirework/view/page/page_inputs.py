"""The embedded tokens that a circuit reads: those that matter to the task are drawn.

A residual channel is read wherever a token's embedding has an entry in it, so that a circuit of a
few dozen nodes reads hundreds of tokens. Embedding entries are no edges of the circuit (Gao et al.
2025, sec. 2): none is pruned, and here none is left out, only put together.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
    deciding: frozenset[int]
    """Ids of drawn tokens in which the two prompts of an example pair differ."""


def inputs_of(document: Document, most: int = MOST) -> Inputs:
    """Choose the tokens to draw, by what they can do to the task in the example prompts.

    First come the tokens in which the two prompts of a pair differ, since nothing else can tell the
    answers apart; then the others by the size of their entries times how often they stand in the
    prompts. Tokens that no prompt has come last, and only where there is room for all tokens.

    Args:
        document: the circuit.
        most: so many tokens are drawn; all, where there are no more.
    """
    edges = [edge for edge in document.io_edges if edge.target is not None]
    deciding = _deciding(document.examples.prompts)
    drawn = set(_most_effective(edges, document.examples.prompts, deciding, most))
    shown = [edge for edge in edges if edge.token_id in drawn]
    readers: dict[int, list[IoEdge]] = defaultdict(list)
    for edge in sorted(edges, key=lambda edge: (-abs(edge.weight), edge.token_id)):
        if edge.token_id not in drawn:
            readers[edge.target or 0].append(edge)
    tokens = {edge.token_id: edge.token or "" for edge in shown}
    return Inputs(
        [(tokens[number], number) for number in sorted(tokens)],
        shown,
        dict(sorted(readers.items())),
        frozenset(number for number, text in tokens.items() if text in deciding),
    )


def _deciding(prompts: Sequence[Sequence[str]]) -> Counter[str]:
    """Count in how many places the two prompts of a pair have another token.

    Pairs are the first and second prompt, the third and fourth, and so on. Where the two differ in
    length, tokens are counted wherever they stand.
    """
    found: Counter[str] = Counter()
    for first, second in zip(prompts[::2], prompts[1::2], strict=False):
        if len(first) == len(second):
            differing = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
            found.update(token for pair in differing for token in pair)
        else:
            found.update((Counter(first) - Counter(second)) + (Counter(second) - Counter(first)))
    return found


def _most_effective(
    edges: Iterable[IoEdge],
    prompts: Sequence[Sequence[str]],
    deciding: Counter[str],
    most: int,
) -> list[int]:
    """Return the ids of the tokens to draw."""
    used = Counter(token for prompt in prompts for token in prompt)
    texts: dict[int, str] = {}
    strength: dict[int, float] = defaultdict(float)
    for edge in edges:
        texts[edge.token_id] = edge.token or ""
        strength[edge.token_id] += abs(edge.weight)

    def rank(number: int) -> tuple[float, ...]:
        text, weight = texts[number], strength[number]
        return -deciding[text] * weight, -used[text] * weight, -weight, number

    ordered = sorted(texts, key=rank)
    if len(ordered) > most and used:
        ordered = [number for number in ordered if used[texts[number]]] or ordered
    return ordered[:most]
