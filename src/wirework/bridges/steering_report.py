"""The report of `steer`: curves, controls, and what each node does alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wirework.bridges.perturbations import Target
from wirework.bridges.text_effect import TextEffect
from wirework.summaries import Report

Control = Literal["random", "other_channel"]
"""`random`: random directions; `other_channel`: those of other channels of the same bridge, which
are no nodes of the circuit where enough remain. At each location and token both add a vector of the
length that the nodes add."""


@dataclass(frozen=True, repr=False)
class Probabilities(Report):
    """Probabilities of the two answers at one strength, over the whole vocabulary unless said.

    Means over the prompts, both contexts together, with standard errors over pairs.
    """

    strength: float
    other: float
    """Probability of the other answer, the right one of the pair's other prompt."""
    other_se: float
    right: float
    """Probability of the right answer."""
    right_se: float
    other_of_two: float
    """Probability of the other answer among the two."""
    other_of_two_se: float
    other_by_side: tuple[float, float]
    """That of the other answer on the first prompts of the pairs, and on the second prompts."""
    other_of_two_by_side: tuple[float, float]


@dataclass(frozen=True, repr=False)
class ControlCurve(Report):
    """Probability of the other answer under a control."""

    control: Control
    n_draws: int
    strengths: tuple[float, ...]
    mean: tuple[float, ...]
    """Mean over the draws of the mean over prompts, at each strength."""
    largest: tuple[float, ...]
    """The largest of the draws."""
    mean_of_two: tuple[float, ...]
    """As `mean`, of the probability of the other answer among the two."""
    largest_of_two: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class NodeEffect(Report):
    """What the direction of one node does alone in the model that is steered."""

    node: str
    location: str
    """Residual location: `L.attn`, before the attention of layer L, or `L.mlp`."""
    other_on_seen: float
    """Probability of the other answer at strength 1, on the pairs that choose the node."""
    other: float
    """The same on held-out pairs."""
    right_without: float
    """Probability of the right answer on held-out pairs with the stream at its mean over text along
    the direction, at every token."""
    right_without_other: float
    """Control: the same for channels of the same bridge that are no nodes of the circuit, a mean
    over the draws."""
    text_loss_without: float
    """Next-token loss on held-out text, in nats, without the direction in the same way; compare
    with `text.loss`."""


@dataclass(frozen=True, repr=False)
class SteeringReport(Report):
    """What steering by nodes of a circuit does to the other model of a bridged run."""

    task: str
    target: Target
    """The model that is steered."""
    nodes: tuple[str, ...]
    """The nodes that steer, together."""
    chosen: bool
    """Whether they were chosen by their effect on pairs that the search has seen."""
    effects: tuple[NodeEffect, ...]
    """Of every node of the circuit that reads the residual stream, by `other_on_seen`."""
    n_seen: int
    """Pairs that the search has seen and that choose the node."""
    n_pairs: int
    """Held-out pairs."""
    curve: tuple[Probabilities, ...]
    """By strength."""
    controls: tuple[ControlCurve, ...]
    directions: Mapping[str, tuple[float, ...]]
    """Node to (D,), by how much the stream at its location changes if the node changes by 1; if the
    sparse model is steered, a unit vector along its channel."""
    text: TextEffect
    """What the same change does to unrelated text."""

    def at(self, strength: float) -> Probabilities:
        """Return the probabilities at a strength that was measured.

        Raises:
            KeyError: it was not.
        """
        for point in self.curve:
            if point.strength == strength:
                return point
        raise KeyError(strength)
