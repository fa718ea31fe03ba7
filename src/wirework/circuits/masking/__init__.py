"""Masks over nodes and edges, ablation baselines and the masked forward pass."""
