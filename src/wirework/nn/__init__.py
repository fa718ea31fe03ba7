"""The transformer, its sites, AbsTopK, gates and sparse storage."""

from wirework.nn.fold import fold_norms
from wirework.nn.kernels.attention import causal_attention
from wirework.nn.kernels.top_k import abs_top_k
from wirework.nn.sites import Edit, ResampleAblation, Site, mean_ablation
from wirework.nn.transformer import Transformer

__all__ = [
    "Edit",
    "ResampleAblation",
    "Site",
    "Transformer",
    "abs_top_k",
    "causal_attention",
    "fold_norms",
    "mean_ablation",
]
