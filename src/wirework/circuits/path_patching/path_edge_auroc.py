"""How well a finder of path edges recovers a circuit that is known."""

import math

import torch

from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.path_patching.path_attribution import PathScores
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.scoring.auroc import auroc
from wirework.errors import InputError
from wirework.interop import GroundTruth
from wirework.interop.interpbench import component


def path_edge_auroc(
    found: PathCircuit | PathScores, truth: GroundTruth, *, inputs: bool = False
) -> float:
    """Return the area under the ROC curve of a finder's path edges against a known circuit.

    An edge scores the size of its effect. Edges that `acdc` removed score 0; kept edges without a
    measured effect come first.

    Args:
        found: a circuit of `acdc`, or scores of `edge_attribution`.
        truth: the model and its circuit, such as `load_interpbench` returns.
        inputs: False compares components: the edges to a head's queries, keys and values count as
            one, with the largest of their scores, and as true if one of them is. InterpBench asks
            for it, because it trains whole heads. True compares single edges.

    Raises:
        InputError: an edge is none of the model, or the circuit has all of the model's edges.

    Source: Gupta et al. 2024 (arXiv 2407.14494).
    """
    config = truth.model.config
    graph = Graph(config.n_layer, config.n_head)
    effects = _effects(found, graph)
    true_edges = {graph.numbered(edge) for edge in truth.path_edges}
    score: dict[tuple[str, str], float] = {}
    is_true: dict[tuple[str, str], bool] = {}
    for edge in graph.edges:
        named = graph.named(edge)
        key = (named.source, named.target if inputs else component(named.target))
        score[key] = max(score.get(key, 0.0), effects.get(edge, 0.0))
        is_true[key] = is_true.get(key, False) or edge in true_edges
    return auroc(
        torch.tensor(list(score.values()), dtype=torch.float64),
        torch.tensor(list(is_true.values())),
    )


def _effects(found: PathCircuit | PathScores, graph: Graph) -> dict[tuple[int, int], float]:
    """Return the size of the effect of each scored edge (source, destination)."""
    edges = found.path_edges if isinstance(found, PathCircuit) else found.top(len(graph.edges))
    if isinstance(found, PathScores) and found.graph != graph:
        raise InputError("the scores are those of another model than the known circuit's")
    return {
        graph.numbered(edge): math.inf if edge.effect is None else abs(edge.effect)
        for edge in edges
    }
