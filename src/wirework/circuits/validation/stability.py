"""Stability of a circuit: which nodes and edges repeated searches find again.

Each run uses a random subset of the pairs and another seed, and every second run rephrases the
pairs. All runs use the templates that the circuit's own search used, so that shares do not depend
on held-out templates. The share of an edge is the fraction of runs that find it again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.feasibility import without_feasibility_checks
from wirework.circuits.pruning.prune import PruningRun
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.summaries import Report
from wirework.tasks import Task, rephrased, tokenizer_of
from wirework.tasks.task_split import held_out_templates

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

End = tuple[str, int]
"""(site, channel) of a node."""

_SHARE = 0.8
"""Share of the pairs that each run gets, drawn without replacement: of two copies of a pair, one
could train masks and the other be held out."""


@dataclass(frozen=True, repr=False)
class Stability(Report):
    """Result of the repeated searches."""

    runs: int
    n_reached: int
    """Number of runs that reach the target."""
    edge_share: float | None
    """Mean of `edge_shares`; None if the circuit has no edges."""
    reached: tuple[bool, ...]
    """Whether each run's circuit reaches the target; if not, it counts as finding nothing."""
    n_edges: tuple[int, ...]
    """Nonzero weights between the nodes of each run's circuit."""
    overlap: tuple[float, ...]
    """Per run: intersection over union of the edges with the circuit; 0 if not reached."""
    edge_shares: tuple[float, ...]
    """Per edge of the circuit: share of runs that find it."""
    node_shares: tuple[float, ...]
    """Per node of the circuit: share of runs that find it."""
    n_kept_edges: tuple[int, ...] = ()
    """Edges that each run's circuit keeps."""


def stability(
    circuit: NodeCircuit, model: "Model", task: Task, config: PruneConfig, data: "Tokens", runs: int
) -> Stability:
    """Repeat the search of a circuit and count which nodes and edges are found again.

    Args:
        circuit: the circuit.
        model: its model.
        task: its task, with all pairs.
        config: settings of its search.
        data: text on which means are measured.
        runs: number of searches.
    """
    edges, nodes = edge_ends(circuit), _node_ends(circuit)
    search_again = partial(_search_again, model, task, config, data, circuit.excluded)
    circuits = [search_again(run) for run in range(1, runs + 1)]
    reached = tuple(found.reached for found in circuits)
    reaching = [found for found in circuits if found.reached]
    edge_counts = Counter(edge for found in reaching for edge in edge_ends(found))
    node_counts = Counter(node for found in reaching for node in _node_ends(found))
    edge_shares = tuple(edge_counts[edge] / runs for edge in edges)
    return Stability(
        runs=runs,
        n_reached=sum(reached),
        edge_share=sum(edge_shares) / len(edges) if edges else None,
        reached=reached,
        n_edges=tuple(found.count_edges(model) for found in circuits),
        n_kept_edges=tuple(found.n_kept_edges for found in circuits),
        overlap=tuple(
            _overlap(set(edges), set(edge_ends(found))) if found.reached else 0.0
            for found in circuits
        ),
        edge_shares=edge_shares,
        node_shares=tuple(node_counts[node] / runs for node in nodes),
    )


def edge_ends(circuit: NodeCircuit) -> list[tuple[End, End]]:
    """Return each edge as ((site, channel), (site, channel)), comparable between circuits."""
    nodes = _node_ends(circuit)
    return [(nodes[edge.source], nodes[edge.target]) for edge in circuit.edges]


def _node_ends(circuit: NodeCircuit) -> list[End]:
    return [(node.site, node.index) for node in circuit.nodes]


def _search_again(
    model: "Model",
    task: Task,
    config: PruneConfig,
    data: "Tokens",
    excluded: Mapping[str, Sequence[int]],
    run: int,
) -> NodeCircuit:
    """Search on a random subset of the pairs, rephrased in every second run, with another seed."""
    generator = Random(f"stability {config.seed} {run}")
    apart = held_out_templates(task, config.seed) or frozenset()
    seen = [pair for pair in task.pairs if pair.template not in apart]
    subset = task.take(generator.sample(seen, max(4, round(_SHARE * len(seen)))))
    pairs = subset if run % 2 else rephrased(subset, run)
    pairs = pairs.fitted(tokenizer_of(model), model.config.n_ctx)
    reseeded = config.model_copy(update={"seed": config.seed + 1000 * run})
    reseeded = without_feasibility_checks(reseeded)
    baseline = AblationBaseline.of(model, data, reseeded)
    pruning_run = PruningRun.of(model, pairs, reseeded, baseline, hold_out_templates=False)
    pruning_run = pruning_run.excluding(excluded)
    with Progress(f"search number {run}", shown=None, part=1.0) as bar:
        return pruning_run.run(bar.update)


def _overlap(a: set[tuple[End, End]], b: set[tuple[End, End]]) -> float:
    """Return intersection over union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0
