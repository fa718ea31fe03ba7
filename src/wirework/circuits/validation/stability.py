"""Stability of a circuit: which nodes and edges repeated searches find again.

Each run uses a random subset of the pairs and another seed, and every second run rephrases the
pairs. The share of an edge is the fraction of runs that find it again.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.pruning.prune import PruningRun, without_feasibility_checks
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.summaries import Report
from wirework.tasks import Task, rephrased, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

End = tuple[str, int]

_SHARE = 0.8  # of the pairs per run, without replacement: a copy could also be held out


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
    """Size of each run's circuit."""
    overlap: tuple[float, ...]
    """Per run: intersection over union of the edges with the circuit; 0 if not reached."""
    edge_shares: tuple[float, ...]
    """Per edge of the circuit: share of runs that find it."""
    node_shares: tuple[float, ...]
    """Per node of the circuit: share of runs that find it."""


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
    circuits = [_search_again(model, task, config, data, run) for run in range(1, runs + 1)]
    reached = tuple(one.reached for one in circuits)
    reaching = [one for one, there in zip(circuits, reached, strict=True) if there]
    found_edges = Counter(edge for one in reaching for edge in edge_ends(one))
    found_nodes = Counter(node for one in reaching for node in _node_ends(one))
    edge_shares = tuple(found_edges[edge] / runs for edge in edges)
    return Stability(
        runs=runs,
        n_reached=sum(reached),
        edge_share=sum(edge_shares) / len(edges) if edges else None,
        reached=reached,
        n_edges=tuple(one.n_edges for one in circuits),
        overlap=tuple(
            _overlap(set(edges), set(edge_ends(one))) if there else 0.0
            for one, there in zip(circuits, reached, strict=True)
        ),
        edge_shares=edge_shares,
        node_shares=tuple(found_nodes[node] / runs for node in nodes),
    )


def edge_ends(circuit: NodeCircuit) -> list[tuple[End, End]]:
    """Return each edge as ((site, channel), (site, channel)), comparable between circuits."""
    nodes = _node_ends(circuit)
    return [(nodes[edge.source], nodes[edge.target]) for edge in circuit.edges]


def _node_ends(circuit: NodeCircuit) -> list[End]:
    return [(node.site, node.index) for node in circuit.nodes]


def _search_again(
    model: "Model", task: Task, config: PruneConfig, data: "Tokens", run: int
) -> NodeCircuit:
    generator = Random(f"stability {config.seed} {run}")
    some = generator.sample(task.pairs, max(4, round(_SHARE * len(task.pairs))))
    pairs = task.take(some) if run % 2 else rephrased(task.take(some), run)
    pairs = pairs.fitted(tokenizer_of(model), model.config.n_ctx)
    other = without_feasibility_checks(config.model_copy(update={"seed": config.seed + 1000 * run}))
    pruning_run = PruningRun.of(model, pairs, other, AblationBaseline.of(model, data, other))
    with Progress(f"search number {run}", shown=None, part=1.0) as bar:
        return pruning_run.run(bar.update)


def _overlap(a: set[tuple[End, End]], b: set[tuple[End, End]]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0
