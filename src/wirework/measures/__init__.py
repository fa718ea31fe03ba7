"""Numbers about a model: loss, sparsity, sparse autoencoders."""

from wirework.measures.activations import default_site, site_values
from wirework.measures.language import Language, language
from wirework.measures.sae import Sae, SaeQuality, check_out, evaluate_sae, load_sae, save_sae
from wirework.measures.sae_training import measure_sae, train_sae
from wirework.measures.sparsity import GateUse, Sparsity, gate_masks, gate_use, sparsity
from wirework.measures.text import held_out, text_of

__all__ = [
    "GateUse",
    "Language",
    "Sae",
    "SaeQuality",
    "Sparsity",
    "check_out",
    "default_site",
    "evaluate_sae",
    "gate_masks",
    "gate_use",
    "held_out",
    "language",
    "load_sae",
    "measure_sae",
    "save_sae",
    "site_values",
    "sparsity",
    "text_of",
    "train_sae",
]
