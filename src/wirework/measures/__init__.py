"""Measures of a trained model: loss, sparsity, ACDC edges, sparse autoencoders, explanations."""

from wirework.measures.activations import default_site, site_values
from wirework.measures.explain import ExplainReport, Explanations, explain_neurons, node_patterns
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
from wirework.renamed_names import old_names

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
    "node_patterns",
    "outlier_warning",
    "prepared_text",
    "reasons",
    "save_sae",
    "site_values",
    "sparsity",
    "train_sae",
]

__getattr__ = old_names(__name__, held_out="fixed_windows", text_of="prepared_text")
