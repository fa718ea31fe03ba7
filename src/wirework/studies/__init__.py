"""Experiments that run as one call: ablations, binarisation, finders, frontier, self-ablation."""

from wirework.renamed_names import old_names
from wirework.studies.ablations import AblationsResult, ablations
from wirework.studies.binarise import BinariseResult, BinariseRow, binarise
from wirework.studies.compare import best_match, geometric_mean, matches
from wirework.studies.finders import FINDERS, FindersResult, finders
from wirework.studies.frontier import FrontierResult, frontier
from wirework.studies.points import FrontierPoint, grid, settings_of
from wirework.studies.self_ablation import SelfAblationResult, self_ablation

__all__ = [
    "FINDERS",
    "AblationsResult",
    "BinariseResult",
    "BinariseRow",
    "FindersResult",
    "FrontierPoint",
    "FrontierResult",
    "SelfAblationResult",
    "ablations",
    "best_match",
    "binarise",
    "finders",
    "frontier",
    "geometric_mean",
    "grid",
    "matches",
    "self_ablation",
    "settings_of",
]

__getattr__ = old_names(__name__, Point="FrontierPoint")
