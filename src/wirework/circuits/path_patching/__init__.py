"""Head-level circuits of path edges: ACDC and edge attribution patching (EAP)."""

from wirework.circuits.path_patching.acdc import acdc, acdc_sweep, read_order, sweep_row
from wirework.circuits.path_patching.corruption import corruption_of
from wirework.circuits.path_patching.graph import Graph
from wirework.circuits.path_patching.path_attribution import PathScores, edge_attribution
from wirework.circuits.path_patching.path_circuit import PathCircuit
from wirework.circuits.path_patching.path_edge_auroc import path_edge_auroc

__all__ = [
    "Graph",
    "PathCircuit",
    "PathScores",
    "acdc",
    "acdc_sweep",
    "corruption_of",
    "edge_attribution",
    "path_edge_auroc",
    "read_order",
    "sweep_row",
]
