"""Circuits: masks, scores, pruning, path patching, validation and adversarial attacks."""

from wirework.circuit_format import (
    Edge,
    EmbeddingEdge,
    IoEdge,
    Losses,
    Node,
    PathEdge,
    TokenGroup,
)
from wirework.circuits.adversarial import AttackReport, BreakingAttack, find_attacks
from wirework.circuits.calibration import Calibration, calibrate, calibrated_loss
from wirework.circuits.circuit import Circuit, check_circuit_place
from wirework.circuits.loading import model_of
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.edges import find_edges, find_io_edges
from wirework.circuits.masking.node_statistics import node_means
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.masking.saved_means import load_means, save_means
from wirework.circuits.masking.training_text import training_windows
from wirework.circuits.node_assembly import FinderResult, assemble, circuit_losses
from wirework.circuits.node_circuit import NodeCircuit
from wirework.circuits.path_patching import (
    PathCircuit,
    PathScores,
    acdc,
    acdc_sweep,
    edge_attribution,
    path_edge_auroc,
    sweep_row,
)
from wirework.circuits.pipeline.exhaust import CircuitSeries, exhaust_circuits
from wirework.circuits.pipeline.prune_all import prune_all
from wirework.circuits.pruning.discretise import clean_up, discretise
from wirework.circuits.pruning.learned_masks import MaskSettings, heaviside, learn_masks
from wirework.circuits.pruning.prune import prune
from wirework.circuits.reading import CircuitExplanation, explain_circuit
from wirework.circuits.scoring.atp_star import atp_star
from wirework.circuits.scoring.auroc import auroc
from wirework.circuits.scoring.faithfulness_curve import FaithfulnessCurve, faithfulness_curve
from wirework.circuits.scoring.node_attribution import (
    attribution,
    integrated_gradients,
    random_order,
)
from wirework.circuits.scoring.scores import METHODS, Scores, attribute, score_nodes
from wirework.circuits.validation.validate import held_out_losses, validate
from wirework.renamed_names import old_names

__all__ = [
    "METHODS",
    "Ablation",
    "AttackReport",
    "BreakingAttack",
    "Calibration",
    "Circuit",
    "CircuitExplanation",
    "CircuitSeries",
    "Edge",
    "EdgeMasks",
    "EmbeddingEdge",
    "FaithfulnessCurve",
    "FinderResult",
    "IoEdge",
    "Losses",
    "MaskSettings",
    "Node",
    "NodeCircuit",
    "NodeSpace",
    "PathCircuit",
    "PathEdge",
    "PathScores",
    "Scores",
    "TokenGroup",
    "acdc",
    "acdc_sweep",
    "assemble",
    "atp_star",
    "attribute",
    "attribution",
    "auroc",
    "calibrate",
    "calibrated_loss",
    "check_circuit_place",
    "circuit_losses",
    "clean_up",
    "discretise",
    "edge_attribution",
    "exhaust_circuits",
    "explain_circuit",
    "faithfulness_curve",
    "find_attacks",
    "find_edges",
    "find_io_edges",
    "heaviside",
    "held_out_losses",
    "integrated_gradients",
    "learn_masks",
    "load_means",
    "model_of",
    "node_means",
    "path_edge_auroc",
    "prune",
    "prune_all",
    "random_order",
    "save_means",
    "score_nodes",
    "sweep_row",
    "training_windows",
    "validate",
]

__getattr__ = old_names(
    __name__,
    Breaking="BreakingAttack",
    Distraction="AttackReport",
    Finding="FinderResult",
    Wiring="EdgeMasks",
    check_place="check_circuit_place",
    find_distractors="find_attacks",
    measure="circuit_losses",
)
