"""Steer a model by nodes of a circuit of the other model of a bridged run.

A node is chosen on pairs that the search has seen, and all numbers are of held-out pairs, beside
controls of equal size: random directions, and the directions of other channels of the bridge.
Shapes: P pairs (two prompts each), M nodes, R draws of a control.
Source: Gao et al. 2025, sec. 2.3, App. A.4, Fig. 9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.bridges.bridged import Bridged, load_bridged
from wirework.bridges.directions import (
    ReadingNode,
    chosen_nodes,
    reading_nodes,
    stream_means,
    stream_sizes,
)
from wirework.bridges.perturbations import (
    Perturbation,
    Target,
    answer_probabilities,
    differences,
    directions_in,
    of_two,
    perturbation,
    probabilities_without,
)
from wirework.bridges.steering_controls import of_equal_size, other_channels
from wirework.bridges.steering_report import (
    Control,
    ControlCurve,
    NodeEffect,
    Probabilities,
    SteeringReport,
)
from wirework.bridges.text_effect import loss_without, text_effect
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.held_out import pairs_of
from wirework.circuits.masking.training_text import disjoint_windows, run_data, windows_at
from wirework.circuits.node_assembly import standard_error
from wirework.circuits.node_circuit import NodeCircuit
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.residual_locations import location_names
from wirework.tasks import Task, TokenizedPairs, load_task

if TYPE_CHECKING:
    from wirework.data import Prepared

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Default strengths: 1 is the whole difference between the two contexts."""

_TEXT_TOKENS = 32_768
"""Tokens of training text on which the sizes of the streams are averaged."""


def steer(
    bridged: Bridged | str | Path,
    circuit: NodeCircuit | str | Path,
    nodes: Sequence[str] | None = None,
    *,
    target: Target = "dense",
    strengths: Sequence[float] = STRENGTHS,
    task: Task | str | Path | None = None,
    pairs: int = 64,
    draws: int = 16,
    seed: int = 0,
    data: "Prepared | None" = None,
) -> SteeringReport:
    """Steer one model of a bridged run by nodes of a circuit of its sparse model.

    For each prompt, the difference between the node's value in the pair's other prompt and its own
    is added at every token, along the node's direction in the model that is steered. The direction
    in the dense model is the decoder's column of the node's channel, times the ratio of the sizes
    of the sparse stream before and after its norm, measured on training text.

    Args:
        bridged: models and bridges; a path is loaded.
        circuit: circuit of the sparse model; a path is loaded.
        nodes: names of the nodes, which steer together; None for the one node that raises the
            probability of the other answer, over the whole vocabulary, most at strength 1 on pairs
            that the search has seen. The change of each node is added at its own location: what is
            pushed at an early one is still there at a later one.
        target: the model to steer. `sparse` steers the sparse model at the node's channel by the
            difference of the dense model's stream, which the encoder reads.
        strengths: factors of the difference, finite numbers; 1 is added if it is missing.
        task: the circuit's own task, or what `ww.task` takes; required for a task of a user's
            function.
        pairs: most pairs to rank on, and most held-out pairs.
        draws: random draws of each control.
        seed: seed of the draws.
        data: text of the sparse model; None for that of its run.

    Raises:
        InputError: the circuit is of another model or has no node that reads the residual stream,
            a node is not one of them, a strength is not finite, a count is not positive, or no
            pair is held out.

    Source: Gao et al. 2025, sec. 2.3, App. A.4.
    """
    wanted = _checked(strengths, pairs, draws)
    bridged = bridged if isinstance(bridged, Bridged) else load_bridged(bridged)
    circuit = NodeCircuit.load(circuit)
    sparse = bridged.sparse
    circuit.check_model(sparse)
    task = None if task is None else load_task(task)
    own = pairs_of(circuit.document, sparse, None, task)
    seen = _first(tokenize_task(own.judge or own.train, sparse), pairs)
    held_out = _first(tokenize_task(own.held_out, sparse), pairs)
    text = run_data(sparse, "sizes of the residual stream") if data is None else data
    steering = _steering(bridged, target, text)
    generator = torch.Generator().manual_seed(seed)
    own_nodes = reading_nodes(circuit, sparse.transformer)
    effects = _effects(steering, own_nodes, seen, held_out, text, draws, generator)
    names = [effects[0].node] if nodes is None else nodes
    chosen = chosen_nodes(names, circuit, sparse.transformer)
    changes = differences(bridged, chosen, held_out, target)
    directions = steering.directions(chosen)
    added = perturbation(chosen, changes, directions)
    curve = tuple(
        _probabilities(answer_probabilities(steering.model, held_out, added, strength), strength)
        for strength in wanted
    )
    controls = tuple(
        _control(kind, steering, held_out, chosen, own_nodes, changes, wanted, draws, generator)
        for kind in ("random", "other_channel")
    )
    return SteeringReport(
        task=own.full_task.name,
        target=target,
        nodes=tuple(node.name for node in chosen),
        chosen=nodes is None,
        effects=effects,
        n_seen=seen.n_pairs,
        n_pairs=held_out.n_pairs,
        curve=curve,
        controls=controls,
        directions={
            node.name: tuple(vector.tolist())
            for node, vector in zip(own_nodes, steering.directions(own_nodes), strict=True)
        },
        text=text_effect(steering.model, added, text.val, generator),
    )


def _steering(bridged: Bridged, target: Target, text: "Prepared") -> "Steering":
    """Return how a run is steered, with sizes and means of streams over its training text."""
    n_ctx = min(bridged.dense.config.n_ctx, bridged.sparse.config.n_ctx, text.train.n_tokens)
    starts, _ = disjoint_windows(text.train, n_ctx, -(-_TEXT_TOKENS // n_ctx))
    windows = list(windows_at(text.train, starts, n_ctx))
    sizes = stream_sizes(bridged.sparse.transformer, windows)
    steered = bridged.dense if target == "dense" else bridged.sparse
    return Steering(bridged, target, sizes, stream_means(steered.transformer, windows))


def _checked(strengths: Sequence[float], pairs: int, draws: int) -> tuple[float, ...]:
    """Return the strengths in order, 0 and 1 among them.

    Raises:
        InputError: one is not finite, or a count is not positive.
    """
    for strength in strengths:
        if not math.isfinite(strength):
            raise InputError(f"a strength must be a finite number, got {strength}")
    for name, count in (("pairs", pairs), ("draws", draws)):
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")
    return tuple(sorted({0.0, 1.0, *map(float, strengths)}))


def _first(batch: TokenizedPairs, count: int) -> TokenizedPairs:
    return batch.select(torch.arange(min(batch.n_pairs, count)))


@dataclass(frozen=True)
class Steering:
    """A bridged run, and which of its models is steered."""

    bridged: Bridged
    target: Target
    sizes: Tensor
    """(2L,) of `stream_sizes`, of the sparse model."""
    means: Sequence[Tensor]
    """`stream_means` of the steered model."""

    @property
    def model(self) -> Transformer:
        """The model that is steered."""
        return (self.bridged.dense if self.target == "dense" else self.bridged.sparse).transformer

    def directions(self, nodes: Sequence[ReadingNode]) -> Tensor:
        """Return (M, D), the directions of nodes."""
        return directions_in(self.bridged, nodes, self.target, self.sizes)

    def other(self, batch: TokenizedPairs, added: Perturbation, strength: float = 1.0) -> float:
        """Return the mean probability of the other answer."""
        return float(answer_probabilities(self.model, batch, added, strength)[:, 1].mean())

    def right_without(self, batch: TokenizedPairs, location: int, direction: Tensor) -> float:
        """Return the mean probability of the right answer, the stream at its mean along (D,)."""
        after = probabilities_without(self.model, batch, location, direction, self.means[location])
        return float(after[:, 0].mean())


def _effects(
    steering: Steering,
    nodes: Sequence[ReadingNode],
    seen: TokenizedPairs,
    held_out: TokenizedPairs,
    text: "Prepared",
    draws: int,
    generator: torch.Generator,
) -> tuple[NodeEffect, ...]:
    """Return what each node does alone, the one with the largest effect on seen pairs first."""
    directions, model = steering.directions(nodes), steering.model
    by_batch = [
        differences(steering.bridged, nodes, batch, steering.target) for batch in (seen, held_out)
    ]
    names, width = location_names(model.config.n_layer), steering.bridged.sparse.config.d_model
    others: dict[int, float] = {}  # the control is the same for all nodes of a location
    for location in {node.location: None for node in nodes}:
        of_location = [node for node in nodes if node.location == location]
        drawn = [
            other_channels(of_location[:1], width, generator, beside=of_location)[0]
            for _ in range(draws)
        ]
        others[location] = fmean(
            steering.right_without(held_out, location, direction)
            for direction in steering.directions(drawn)
        )
    effects = []
    for i, node in enumerate(nodes):
        own = directions[i : i + 1]
        on_seen, on_held_out = (
            steering.other(batch, perturbation([node], changes[i : i + 1], own))
            for batch, changes in zip((seen, held_out), by_batch, strict=True)
        )
        effects.append(
            NodeEffect(
                node=node.name,
                location=names[node.location],
                other_on_seen=on_seen,
                other=on_held_out,
                right_without=steering.right_without(held_out, node.location, own[0]),
                right_without_other=others[node.location],
                text_loss_without=loss_without(
                    model, node.location, own[0], steering.means[node.location], text.val
                ),
            )
        )
    return tuple(sorted(effects, key=lambda effect: -effect.other_on_seen))


def _probabilities(probabilities: Tensor, strength: float) -> Probabilities:
    """Return the summary of (2P, 2) probabilities of the right and the other answer."""
    by_pair = probabilities.view(-1, 2, 2)
    right, other = by_pair.mean(1).unbind(1)
    first, second = by_pair[..., 1].mean(0).tolist()
    first_of_two, second_of_two = of_two(probabilities).view(-1, 2).mean(0).tolist()
    among_two = of_two(probabilities).view(-1, 2).mean(1)
    return Probabilities(
        strength=strength,
        other=float(other.mean()),
        other_se=standard_error(other),
        right=float(right.mean()),
        right_se=standard_error(right),
        other_of_two=float(among_two.mean()),
        other_of_two_se=standard_error(among_two),
        other_by_side=(first, second),
        other_of_two_by_side=(first_of_two, second_of_two),
    )


def _control(
    kind: Control,
    steering: Steering,
    batch: TokenizedPairs,
    nodes: Sequence[ReadingNode],
    of_circuit: Sequence[ReadingNode],
    changes: Tensor,
    strengths: Sequence[float],
    draws: int,
    generator: torch.Generator,
) -> ControlCurve:
    """Return the curve of a control: the same changes along other directions, of equal size."""
    own = steering.directions(nodes)
    added, width = perturbation(nodes, changes, own), steering.bridged.sparse.config.d_model
    by_draw = []
    for _ in range(draws):
        drawn = (
            torch.randn(own.shape, generator=generator)
            if kind == "random"
            else steering.directions(other_channels(nodes, width, generator, of_circuit))
        )
        control = of_equal_size(perturbation(nodes, changes, drawn), added)
        curve = (
            answer_probabilities(steering.model, batch, control, strength) for strength in strengths
        )
        by_draw.append([[float(p[:, 1].mean()), float(of_two(p).mean())] for p in curve])
    values, among_two = torch.tensor(by_draw, dtype=torch.float64).unbind(2)  # (R, strengths)
    return ControlCurve(
        control=kind,
        n_draws=draws,
        strengths=tuple(strengths),
        mean=tuple(values.mean(0).tolist()),
        largest=tuple(values.amax(0).tolist()),
        mean_of_two=tuple(among_two.mean(0).tolist()),
        largest_of_two=tuple(among_two.amax(0).tolist()),
    )
