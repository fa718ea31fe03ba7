"""How much of a circuit comes back when the search is repeated under small changes.

Each run draws other pairs, another seed of masks and search, and, in every second run, paraphrases
of the pairs. An edge carries the share of runs in which it was found again.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from wirework.circuits.circuit import Circuit
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.prune import PruningRun, without_feasibility_checks
from wirework.config import PruneConfig
from wirework.console import Progress
from wirework.tasks import Task, rephrased, tokenizer_of

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

End = tuple[str, int]

_SHARE = 0.8  # of the pairs that a run gets: without replacement, as a copy could be held out too


@dataclass(frozen=True)
class Stability:
    """What came of the repeated searches."""

    runs: int
    n_reached: int
    """How many of them reach the target."""
    edge_share: float | None
    """Mean of `edge_shares`; None for a circuit without edges."""
    reached: tuple[bool, ...]
    """Whether each run's circuit reaches the target; one that does not brings nothing back."""
    n_edges: tuple[int, ...]
    """Size of each run's circuit."""
    overlap: tuple[float, ...]
    """Of each run: edges shared with the circuit over edges of either; 0 if not reached."""
    edge_shares: tuple[float, ...]
    """Of each edge of the circuit: in what share of the runs it was found."""
    node_shares: tuple[float, ...]
    """Of each node of the circuit, likewise."""


def stability(
    circuit: Circuit, model: "Model", task: Task, config: PruneConfig, data: "Tokens", runs: int
) -> Stability:
    """Repeat the search that found a circuit and count what comes back.

    Args:
        circuit: the one in question.
        model: its model.
        task: its task, all pairs.
        config: what found it.
        data: text for the means.
        runs: how many searches.
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


def edge_ends(circuit: Circuit) -> list[tuple[End, End]]:
    """Return each edge's two ends as (site, channel), which any circuit of the model can share."""
    nodes = _node_ends(circuit)
    return [(nodes[edge.source], nodes[edge.target]) for edge in circuit.edges]


def _node_ends(circuit: Circuit) -> list[End]:
    return [(node.site, node.index) for node in circuit.nodes]


def _search_again(
    model: "Model", task: Task, config: PruneConfig, data: "Tokens", run: int
) -> Circuit:
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
