"""A neuron and the excerpts of text that it is explained from and scored on."""

from collections.abc import Sequence
from dataclasses import dataclass

from wirework.node_names import node_name

LEVELS = 10
"""Activations are shown and predicted from 0 to 10 (Bills et al. 2023)."""


@dataclass(frozen=True)
class Neuron:
    """One channel of one site."""

    site: str
    index: int

    @property
    def name(self) -> str:
        """`3.mlp.post_act.17`."""
        return node_name(self.site, self.index)


@dataclass(frozen=True)
class Excerpt:
    """A window of text and what a neuron does at each token of it."""

    start: int
    """Where it stands in its split, in tokens."""
    tokens: tuple[int, ...]
    activations: tuple[float, ...]
    """As many as tokens, in the neuron's own units."""

    @property
    def peak(self) -> float:
        """The greatest activation."""
        return max(self.activations)


@dataclass(frozen=True)
class NeuronRecord:
    """What was seen of a neuron. Excerpts to explain from and to score on share no window."""

    neuron: Neuron
    peak: float
    """Greatest activation in the text to explain from; what `LEVELS` stands for."""
    mean: float
    """Mean activation in that text."""
    live_fraction: float
    """Share of its tokens with an activation above 0."""
    top: tuple[Excerpt, ...]
    """To explain from, the most activating first."""
    random: tuple[Excerpt, ...]
    """Others of the same text."""
    held_out_top: tuple[Excerpt, ...]
    """To score on: the most activating of held-out text."""
    held_out_random: tuple[Excerpt, ...]
    """To score on: others of it."""

    @property
    def dead(self) -> bool:
        """Whether it is never above 0 in the text to explain from."""
        return self.peak <= 0

    @property
    def held_out(self) -> tuple[Excerpt, ...]:
        """All excerpts to score on, the top ones first."""
        return (*self.held_out_top, *self.held_out_random)


def levels(activations: Sequence[float], peak: float) -> list[int]:
    """Return activations as whole numbers from 0 to 10, rounded down; 0 for what is below 0.

    Args:
        activations: in the neuron's own units.
        peak: what becomes 10; above it stays 10.

    Source: Bills et al. 2023, "Step 1".
    """
    if peak <= 0:
        return [0] * len(activations)
    return [min(LEVELS, int(LEVELS * max(value, 0.0) / peak)) for value in activations]
