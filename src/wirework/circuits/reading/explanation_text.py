"""The explanation of a circuit as Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from wirework.circuits.reading.embedding_reading import EmbeddingReading
from wirework.circuits.reading.explain_circuit import CircuitExplanation
from wirework.circuits.reading.node_pattern import NodePattern
from wirework.circuits.reading.node_reading import NodeReading
from wirework.circuits.reading.words import code
from wirework.errors import number_of, printable
from wirework.summaries import NotMeasured

_SHOWN = 3
"""Driving tokens shown at each end."""
_PATTERN_LENGTH = 160
"""Characters of a pattern that are shown; `explanation.json` has all."""


def to_markdown(explanation: CircuitExplanation) -> str:
    """Return the explanation as a page of Markdown: the sentences, then a table of the nodes."""
    return "\n".join(_lines(explanation)) + "\n"


def by_contrast(explanation: CircuitExplanation) -> list[NodeReading]:
    """Return the nodes by the magnitude of their contrast, the largest first."""
    return sorted(explanation.nodes, key=lambda node: -abs(node.contrast))


def driving_text(node: NodeReading) -> str:
    """Return the tokens that drive a node, highest and lowest, with the share they explain."""
    driving = node.driving_tokens
    if isinstance(driving, NotMeasured):
        return driving.reason
    ends = [
        ", ".join(f"{code(one.token)} {one.value:.1f}" for one in tokens[:_SHOWN])
        for tokens in (driving.highest, driving.lowest)
    ]
    return f"{ends[0]} ... {ends[1]} (the token explains {driving.explained:.0%})"


def _lines(explanation: CircuitExplanation) -> Iterator[str]:
    yield f"# The circuit of {code(explanation.task)} in words"
    yield ""
    pairs = number_of(explanation.n_pairs, "held-out pair")
    yield (
        f"- {explanation.n_explained} of {number_of(explanation.n_nodes, 'node')} are in a "
        f"sentence that an experiment on {pairs} confirms."
    )
    yield (
        f"- Task loss of the circuit there: {explanation.loss:.3f} nats; of the explained nodes "
        f"alone: {explanation.loss_explained:.3f} (target {explanation.target_loss:g})."
    )
    yield f"- Tokens that decide: {explanation.deciding}."
    yield ""
    for number, sentence in enumerate(explanation.sentences, 1):
        refused = "" if sentence.stands else "**Refused.** "
        yield f"{number}. {refused}{sentence.text}"
        yield f"   *{sentence.experiment}.*"
    yield ""
    contexts = f"{_cell(explanation.first)} | {_cell(explanation.second)}"
    yield f"| node | role | contrast | {contexts} | driven by |"
    yield "|---|---|---|---|---|---|"
    for node in by_contrast(explanation):
        at = node.at_place
        yield (
            f"| `{node.node}` | {node.role} | {node.contrast:+.2f} | {at.first:.2f} | "
            f"{at.second:.2f} | {_cell(driving_text(node))} |"
        )
    if explanation.embedding is not None:
        yield from _embedding_lines(explanation.embedding)
    if explanation.patterns is not None:
        yield from _pattern_lines(explanation.patterns)


def embedding_row(reading: EmbeddingReading) -> dict[str, str]:
    """Return the row of an embedding edge, column to text; the loss without it is in nats."""
    more = reading.n_entries - len(reading.tokens)
    tokens = [code(token) for token in reading.tokens]
    return {
        "channel": str(reading.channel),
        "read by": ", ".join(f"`{name}`" for name in reading.readers),
        "token group": printable(reading.group),
        "tokens": ", ".join([*tokens, *([f"{more} more"] if more else [])]),
        "mean entry": f"{reading.mean_entry:+.2f}",
        "loss without": f"{reading.loss_without:.3f}",
    }


def _embedding_lines(embedding: Sequence[EmbeddingReading]) -> Iterator[str]:
    yield ""
    yield "## What it reads from the embedding"
    yield ""
    yield (
        "At these channels all other token groups are at the mean over text, or at zero if none of "
        "their tokens in the prompts has an entry. `loss without` is the task "
        "loss of the circuit in nats without the group."
    )
    yield from _table_lines([embedding_row(reading) for reading in embedding])


def pattern_row(found: NodePattern) -> dict[str, str]:
    """Return the row of a node's pattern, column to text."""
    score = "none" if found.score is None else f"{found.score:.2f}"
    return {
        "node": f"`{found.node}`",
        "values": "below 0" if found.negated else "above 0",
        "score": score,
        "pattern": _shortened(found.pattern),
    }


def _shortened(pattern: str) -> str:
    """Return a pattern as inline code, cut to `_PATTERN_LENGTH`."""
    cut = pattern if len(pattern) <= _PATTERN_LENGTH else f"{pattern[:_PATTERN_LENGTH]} ..."
    return f"`` {cut} ``" if "`" in cut else f"`{cut}`"


def _pattern_lines(patterns: Sequence[NodePattern]) -> Iterator[str]:
    yield ""
    yield "## Where in text its nodes are above and below 0"
    yield ""
    yield (
        "Patterns are learned from training text. The score is the correlation of predictions "
        "with the values of the node on held-out text, below 0 with the sign turned."
    )
    yield from _table_lines([pattern_row(found) for found in patterns])


def _table_lines(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield a table after an empty line; nothing without rows."""
    if not rows:
        return
    yield ""
    yield f"| {' | '.join(rows[0])} |"
    yield f"|{'---|' * len(rows[0])}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row.values()))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
