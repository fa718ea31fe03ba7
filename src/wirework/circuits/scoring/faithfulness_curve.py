"""Faithfulness curve of a ranking of nodes, and the areas by which MIB compares rankings.

Shapes: N nodes of all sites, F fractions.
Source: Mueller et al. 2025, MIB: A Mechanistic Interpretability Benchmark (circuit localisation).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.errors import InputError
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Fractions of the nodes that are kept, as in MIB, which counts edges."""


@dataclass(frozen=True, repr=False)
class FaithfulnessCurve(Report):
    """Faithfulness of the best-ranked nodes alone against their number."""

    n_nodes: tuple[int, ...]
    """Kept nodes at each point, up to all nodes of the model."""
    faithfulness: tuple[float, ...]
    """(m(kept) - m(none)) / (m(all) - m(none)), with m the mean logit difference over the prompts:
    1 is the whole model, 0 no node; above 1 the kept nodes answer more strongly than the model."""
    cpr: float
    """Area under the curve over the fraction of kept nodes, from the first fraction on; higher is
    better, above 1 is overshoot (MIB: integrated circuit performance ratio)."""
    cmd: float
    """Area between the curve and 1; lower is better (MIB: integrated circuit-model distance)."""


@torch.no_grad()
def faithfulness_curve(
    ablation: Ablation,
    score: Tensor,
    batch: TokenizedPairs,
    fractions: Sequence[float] = FRACTIONS,
) -> FaithfulnessCurve:
    """Keep growing shares of the best-ranked nodes, ablate the rest, and measure faithfulness.

    Args:
        ablation: the model with masks over its nodes; of resample ablation one resample is used.
        score: (N,) finite numbers, higher is more important; ties in node order.
        batch: tokenised pairs of a task.
        fractions: rising shares of the nodes, the last one 1; at least one node is kept.

    Raises:
        InputError: the fractions do not rise to 1, the score does not fit the model or is not
            finite, or the whole model's mean logit difference is not above that with all nodes
            ablated.
    """
    _check(ablation, score, fractions)
    size = ablation.space.size
    counts = [max(1, round(fraction * size)) for fraction in fractions]
    order = score.sort(descending=True, stable=True).indices
    masks = torch.zeros(len(counts) + 1, size, device=order.device)
    for mask, count in zip(masks[1:], counts, strict=True):
        mask[order[:count]] = 1
    none, *kept = ablation.untied().all_logit_diffs(masks, batch).double().mean(1).tolist()
    if not kept[-1] > none:  # also true for NaN
        raise InputError(
            f"the model's mean logit difference {kept[-1]:.3g} is not above that of no node, "
            f"{none:.3g}: it does not do the task"
        )
    faithfulness = [(value - none) / (kept[-1] - none) for value in kept]
    shares = [count / size for count in counts]
    return FaithfulnessCurve(
        n_nodes=tuple(counts),
        faithfulness=tuple(faithfulness),
        cpr=_area(shares, faithfulness),
        cmd=_area(shares, [abs(1 - value) for value in faithfulness]),
    )


def _area(places: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a line through points, by the trapezoidal rule."""
    points = zip(places, values, strict=True)
    return sum((b - a) * (f + g) / 2 for (a, f), (b, g) in pairwise(points))


def _check(ablation: Ablation, score: Tensor, fractions: Sequence[float]) -> None:
    if score.shape != (ablation.space.size,):
        raise InputError(
            f"expected a score of {ablation.space.size} nodes, got {tuple(score.shape)}"
        )
    if not bool(score.isfinite().all()):
        raise InputError("a ranking needs finite scores, got one that is not")
    rising = all(a < b for a, b in pairwise(fractions))
    if not fractions or not rising or fractions[0] <= 0 or fractions[-1] != 1:
        raise InputError(f"fractions must rise from above 0 to 1, got {list(fractions)}")
