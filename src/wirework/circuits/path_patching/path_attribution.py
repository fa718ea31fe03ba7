"""Edge attribution patching (EAP): estimate from gradients of ACDC's effect for all path edges.

With a gate g on an edge, its destination reads g times the value of the source plus 1 - g times its
ablated value. The score of the edge is minus the gradient of the metric with respect to g at g = 1.
This is (ablated minus clean value of the source) times the gradient with respect to the input of
the destination, summed over channels and tokens, so one forward and one backward pass score all
edges. To first order, a score is ACDC's `effect`: the increase of the metric without the edge.
Source: Syed et al. 2023 (arXiv 2310.10348); with integrated gradients Hanna et al. 2024
(arXiv 2403.17806).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wirework.circuit_format import PathEdge
from wirework.circuits.path_patching.contrast import Metric
from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.path_patching.patched import Patched
from wirework.circuits.path_patching.path_assembly import assemble_paths
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.path_patching.setting import Setting
from wirework.circuits.path_patching.top_k_swaps import (
    Selections,
    recorded_selections,
    slopes_between,
)
from wirework.config import AcdcConfig
from wirework.console import warn
from wirework.errors import InputError, number_of, quoted
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.summaries import short, shown_as
from wirework.tasks import Task, load_task

if TYPE_CHECKING:
    from wirework.model import Model

_SETTINGS = ("metric", "ablation", "corruption", "symmetric", "pairs", "seed")
"""Settings of `AcdcConfig` that scores depend on."""
TOLERANCE = 0.05
"""A warning is printed if completeness differs from 1 by more than this."""


@dataclass(frozen=True)
class PathScores:
    """Score of each path edge for a task: estimated increase of the metric without the edge."""

    setting: Setting
    """The model and the prompts."""
    scores: Tensor
    """(destinations, sources) float64 in units of the metric; positive if removing the edge
    increases the metric, 0 where there is no edge."""
    settings: Mapping[str, Any]
    """The settings that the scores depend on, by name."""
    completeness: float | None = None
    """Sum of the scores of the embedding's edges, divided by the difference of the metric between
    corrupted and clean embeddings; 1 if the scores explain all of the difference. None under `zero`
    and `mean` ablation, whose ablated values are not those of the corrupted embedding."""

    def __repr__(self) -> str:
        strongest = (f"{edge.source} -> {edge.target} {short(edge.effect)}" for edge in self.top(3))
        about = (
            f"{quoted(self.setting.full_task.name)}, {self.settings['metric']}: "
            f"{number_of(len(self.graph.edges), 'path edge')}"
        )
        if self.completeness is not None:
            about += f", completeness {self.completeness:.3f}"
        return shown_as("PathScores", about, f"strongest {', '.join(strongest)}")

    @property
    def graph(self) -> Graph:
        """The graph, whose numbers index `scores`."""
        return self.setting.patched.graph

    def top(self, count: int) -> list[PathEdge]:
        """Return the edges with the largest absolute scores, each with its score as `effect`.

        Edges with equal scores are in ACDC's default order.

        Args:
            count: how many edges; all if there are fewer.
        """
        scored = [(edge, float(self.scores[edge[1], edge[0]])) for edge in self.graph.edges]
        strongest = sorted(scored, key=lambda edge_score: -abs(edge_score[1]))[: max(0, count)]
        return [
            self.graph.named(edge).model_copy(update={"effect": score}) for edge, score in strongest
        ]

    def circuit(self, count: int) -> PathCircuit:
        """Return the circuit of the edges of `top(count)`, measured on the same prompts.

        Edges without effect are dropped, as in `acdc`.

        Args:
            count: how many edges to take before that.
        """
        return assemble_paths(
            self.setting,
            self.top(count),
            finder="edge_attribution",
            settings={**self.settings, "count": count},
            completeness=self.completeness,
        )


@unchanged_weights()
def edge_attribution(
    model: "Model | str | Path",
    task: Task | str | Path,
    config: AcdcConfig | None = None,
    *,
    steps: int = 8,
    **overrides: Any,
) -> PathScores:
    """Estimate the effect of every path edge from gradients of the metric.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: as in `acdc`.
        config: settings, of which `metric`, `ablation`, `corruption`, `symmetric`, `pairs` and
            `seed` are used; None for the defaults, with `logit_difference` as the metric.
        steps: number of points between corrupted and clean embeddings at which gradients are taken
            (Gauss-Legendre rule: integrated gradients). Between the points AbsTopK selects other
            channels; the scores include these jumps (docs/acdc.md). 1 takes the gradient on the
            clean prompts only: plain edge attribution patching. The metric `kl` needs at least 2,
            because its gradient on the clean prompts is zero.
        **overrides: these settings by name; they win over `config`.

    Returns:
        The scores of all path edges. A warning says if they do not add up to the difference between
        corrupted and clean prompts.

    Raises:
        InputError: as for `acdc`; or `steps` is below 1, or is 1 with the metric `kl`.

    Source: Syed et al. 2023 (arXiv 2310.10348); Hanna et al. 2024 (arXiv 2403.17806).
    """
    if config is None:
        overrides = {"metric": "logit_difference", **overrides}
    config = AcdcConfig.overridden(config, overrides, only=_SETTINGS)
    if steps < 1:
        raise InputError(f"edge attribution takes 1 step or more: got {steps}")
    if steps == 1 and config.metric == "kl":
        why = "its gradient on the clean prompts is zero"
        raise InputError(f"kl needs at least 2 steps: {why}; got {steps}")
    from wirework.model import load

    setting = Setting.of(load(model), load_task(task), config)
    reference = setting.patched.run().logits
    measure = setting.patched.contrast.metric(config.metric, reference)
    scores = path_scores(setting.patched, measure, steps)
    share = completeness(setting.patched, measure, scores)
    if share is not None and abs(share - 1) > TOLERANCE:
        warn(
            f"the edge scores add up to {share:.0%} of the difference between corrupted and clean "
            f"prompts with steps={steps}: try more steps, and compare with acdc"
        )
    settings = {name: getattr(setting.config, name) for name in _SETTINGS}
    return PathScores(setting, scores, {**settings, "steps": steps}, share)


def path_scores(patched: Patched, metric: Metric, steps: int = 1) -> Tensor:
    """Return minus the gradient of a metric with respect to all gates, (destinations, sources).

    With several steps the result is a weighted mean of gradients in runs whose embedding lies
    between the corrupted and the clean one, at Gauss-Legendre points. In each of these runs,
    closing a gate subtracts what it subtracts in the clean run. Each point stands for an interval
    as long as its weight, and AbsTopK has its slope between the ends of that interval.

    Args:
        patched: the model and the prompts.
        metric: maps the logits of a run to one number.
        steps: number of points; 1 takes the gradient of the clean run.
    """
    graph = patched.graph
    clean = patched.run().values
    deviations = [value - ablated for value, ablated in zip(clean, patched.ablated, strict=True)]
    corrupted = patched.transformer.entry(patched.contrast.corrupted)[0]

    def embedding(fraction: float) -> Tensor:
        return corrupted + (clean[0] - corrupted) * fraction

    @torch.no_grad()
    def selections(fraction: float) -> Selections:
        with recorded_selections(patched.transformer) as recorded:
            patched.run(entry=embedding(fraction))
        return recorded

    def gradient(fraction: float) -> Tensor:
        gates = torch.ones_like(total, requires_grad=True)
        logits = patched.run(gates, entry=embedding(fraction), deviations=deviations).logits
        metric(logits).backward()  # type: ignore[no-untyped-call]
        assert gates.grad is not None
        return gates.grad

    total = torch.zeros(len(graph.destinations), len(graph.sources), dtype=clean[0].dtype)
    total = total.to(patched.contrast.last_positions.device)
    if steps == 1:
        return -gradient(1.0)
    before, end = selections(0.0), 0.0
    for point, weight in quadrature_points(steps):
        end += weight
        after = selections(end)
        with slopes_between(patched.transformer, before, after):
            total -= gradient(point) * weight
        before = after
    return total


def quadrature_points(steps: int) -> list[tuple[float, float]]:
    """Return the points of the Gauss-Legendre rule on (0, 1) in ascending order, with weights.

    The weights add up to 1. If (0, 1) is cut into intervals as long as the weights, in order, each
    interval contains its point.

    Args:
        steps: number of points.
    """
    roots, weights = np.polynomial.legendre.leggauss(steps)  # on (-1, 1)
    return list(zip(((roots + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


@torch.no_grad()
def completeness(patched: Patched, metric: Metric, scores: Tensor) -> float | None:
    """Return `PathScores.completeness` for scores (destinations, sources)."""
    if patched.ablation != "corrupted":
        return None
    corrupted = patched.transformer.entry(patched.contrast.corrupted)[0]
    metric_corrupted = metric(patched.run(entry=corrupted).logits)
    difference = float(metric_corrupted - metric(patched.run().logits))
    return float(scores[:, 0].sum()) / difference if difference else None
