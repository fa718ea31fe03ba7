"""Numbers about a model; nothing here trains the model that it measures."""

from wirework.measures.activations import default_site, site_values
from wirework.measures.explain import Explanations, explain_neurons
from wirework.measures.language import Language, language
from wirework.measures.report import COLUMNS, headline, measure, reasons
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
from wirework.measures.text import held_out, text_of

__all__ = [
    "COLUMNS",
    "Explanations",
    "GateUse",
    "Language",
    "Sae",
    "SaeQuality",
    "SaeScores",
    "Sparsity",
    "check_out",
    "default_site",
    "evaluate_sae",
    "explain_neurons",
    "gate_masks",
    "gate_use",
    "headline",
    "held_out",
    "language",
    "load_sae",
    "measure",
    "measure_sae",
    "outlier_warning",
    "reasons",
    "save_sae",
    "site_values",
    "sparsity",
    "text_of",
    "train_sae",
]
