"""Masks over nodes and edges, ablation baselines and the masked forward pass.

Masks are trained in `circuits/pruning/learned_masks.py`.
"""
