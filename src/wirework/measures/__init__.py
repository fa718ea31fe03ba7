"""Measures of a trained model: loss, sparsity, ACDC edges, sparse autoencoders, explanations."""

from typing import Any

from wirework.console import warn_once
from wirework.measures.activations import default_site, site_values
from wirework.measures.explain import ExplainReport, Explanations, explain_neurons
from wirework.measures.instruments import measure
from wirework.measures.language import Language, language
from wirework.measures.measured_text import fixed_windows, prepared_text
from wirework.measures.report import (
    COLUMNS,
    AcdcMeasures,
    Headline,
    MeasureReport,
    TaskSkill,
    headline,
    reasons,
)
from wirework.measures.sae import (
    Sae,
    SaeQuality,
    SaeScores,
    check_out,
    evaluate_sae,
    load_sae,
    outlier_warning,
    save_sae,
)
from wirework.measures.sae_training import measure_sae, train_sae
from wirework.measures.sparsity import GateUse, Sparsity, gate_masks, gate_use, sparsity

__all__ = [
    "COLUMNS",
    "AcdcMeasures",
    "ExplainReport",
    "Explanations",
    "GateUse",
    "Headline",
    "Language",
    "MeasureReport",
    "Sae",
    "SaeQuality",
    "SaeScores",
    "Sparsity",
    "TaskSkill",
    "check_out",
    "default_site",
    "evaluate_sae",
    "explain_neurons",
    "fixed_windows",
    "gate_masks",
    "gate_use",
    "headline",
    "language",
    "load_sae",
    "measure",
    "measure_sae",
    "outlier_warning",
    "prepared_text",
    "reasons",
    "save_sae",
    "site_values",
    "sparsity",
    "train_sae",
]

_RENAMED = {"held_out": "fixed_windows", "text_of": "prepared_text"}
"""Old names to current names; the next release removes the old ones."""


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_once(f"measures.{name} is called measures.{_RENAMED[name]} now")
    return globals()[_RENAMED[name]]
