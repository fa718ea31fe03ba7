"""A neuron, and the excerpts of text that explain and score it."""

from collections.abc import Sequence
from dataclasses import dataclass

from wirework.node_names import neuron_name

LEVELS = 10
"""Activations are shown and predicted from 0 to 10 (Bills et al. 2023)."""


@dataclass(frozen=True)
class Neuron:
    """One channel of one site."""

    site: str
    index: int
    negated: bool = False
    """Whether its activation counts with the opposite sign, so that an explanation says where a
    channel that also falls below 0 is lowest."""

    @property
    def name(self) -> str:
        """`3.mlp.post_act.17`, or `3.mlp.post_act.17.negated`."""
        return neuron_name(self.site, self.index, self.negated)


@dataclass(frozen=True)
class Excerpt:
    """A window of text and a neuron's activation at each of its tokens."""

    start: int
    """Index of its first token in the split."""
    tokens: tuple[int, ...]
    activations: tuple[float, ...]
    """One per token, in the neuron's own units."""

    @property
    def peak(self) -> float:
        """The greatest activation."""
        return max(self.activations)


@dataclass(frozen=True)
class NeuronRecord:
    """Statistics and excerpts of a neuron. Excerpts that explain and that score share no window."""

    neuron: Neuron
    peak: float
    """Greatest activation in the training text; it becomes `LEVELS`."""
    mean: float
    """Mean activation in the training text."""
    live_fraction: float
    """Share of tokens of the training text with an activation above 0."""
    top: tuple[Excerpt, ...]
    """Training text, to explain from: the most activating excerpts, highest first."""
    random: tuple[Excerpt, ...]
    """Training text, to explain from: random other excerpts."""
    held_out_top: tuple[Excerpt, ...]
    """Held-out text, to score on: the most activating excerpts."""
    held_out_random: tuple[Excerpt, ...]
    """Held-out text, to score on: random other excerpts."""

    @property
    def dead(self) -> bool:
        """Whether the activation is never above 0 in the training text."""
        return self.peak <= 0

    @property
    def held_out(self) -> tuple[Excerpt, ...]:
        """All excerpts to score on, the top ones first."""
        return (*self.held_out_top, *self.held_out_random)


def levels(activations: Sequence[float], peak: float) -> list[int]:
    """Return activations as whole numbers from 0 to 10, rounded down; negative ones become 0.

    Args:
        activations: in the neuron's own units.
        peak: the activation that becomes 10; larger ones become 10 too.

    Source: Bills et al. 2023, "Step 1".
    """
    if peak <= 0:
        return [0] * len(activations)
    return [min(LEVELS, int(LEVELS * max(value, 0.0) / peak)) for value in activations]
