"""`NodePattern`: a token pattern that says where a node of a circuit is above or below 0."""

from dataclasses import dataclass

from wirework.summaries import Report


@dataclass(frozen=True, repr=False)
class NodePattern(Report):
    """Where in text a node is furthest above 0, or, if `negated`, furthest below 0."""

    node: str
    """Name, `2.attn.v.21`."""
    negated: bool
    pattern: str
    """The strongest patterns in words, `"(" after ["print"|"len"]`."""
    score: float | None
    """Correlation of predicted with true values on held-out text, most active and random excerpts;
    None if the node has the same value everywhere there."""
