"""Find kept path edges without effect: not connected from the embedding or not to the output.

A removed edge contributes its source's ablated value. If no path of kept edges leads from the
embedding to the source, its value in the patched run equals that of the corrupted run, so keeping
the edge has no effect. An edge also has no effect if no kept path leads from its target to the
output.
Shapes: M destinations, S sources.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import Patched, part_sites


class EdgesWithoutEffect(NamedTuple):
    """Kept edges without effect, each (M, S) bool."""

    idle: Tensor
    """Edges whose removal leaves the patched run unchanged."""
    constant: Tensor
    """Edges whose source is not reached by kept edges but whose value, the same for all prompts,
    differs from the ablated one: the mean of a value is not the value at the mean input."""


def edges_without_effect(patched: Patched, gates: Tensor) -> EdgesWithoutEffect:
    """Return the kept edges of a patched run that have no effect on the output.

    Args:
        patched: the model and how removed edges are ablated.
        gates: (M, S), 1 where an edge is kept.
    """
    kept = gates.bool()
    unreached = kept & ~_reached(patched, kept)
    unread = kept & ~_read(patched, kept)[:, None]
    none = torch.zeros_like(kept)
    if patched.ablation == "corrupted":
        return EdgesWithoutEffect(unread | unreached, none)
    return EdgesWithoutEffect(unread, unreached & ~unread)


def _reached(patched: Patched, kept: Tensor) -> Tensor:
    """Return (S,) bool, the sources reached from the embedding through kept edges."""
    graph = patched.graph
    reachable = torch.zeros(len(graph.sources), dtype=torch.bool, device=kept.device)
    reachable[0] = True
    for layer in range(graph.n_layer):
        inputs = (kept[_head_inputs(patched, layer)] & reachable).any(1)
        heads = inputs.view(len(QKV), graph.n_head).any(0)
        reachable[graph.head(layer, 0) : graph.mlp(layer)] = _together(patched, layer, heads)
        reachable[graph.mlp(layer)] = (kept[graph.mlp_input(layer)] & reachable).any()
    return reachable


def _read(patched: Patched, kept: Tensor) -> Tensor:
    """Return (M,) bool, the destinations on which the output depends."""
    graph = patched.graph
    reachable = torch.zeros(len(graph.destinations), dtype=torch.bool, device=kept.device)
    reachable[graph.final] = True
    for layer in reversed(range(graph.n_layer)):
        reachable[graph.mlp_input(layer)] = (kept[:, graph.mlp(layer)] & reachable).any()
        heads = (kept[:, graph.head(layer, 0) : graph.mlp(layer)] & reachable[:, None]).any(0)
        reachable[_head_inputs(patched, layer)] = _together(patched, layer, heads).repeat(len(QKV))
    return reachable


def _head_inputs(patched: Patched, layer: int) -> slice:
    graph = patched.graph
    return slice(graph.head_input(layer, 0, 0), graph.mlp_input(layer))


def _together(patched: Patched, layer: int, heads: Tensor) -> Tensor:
    """Return (H,); if AbsTopK couples the heads of the layer, all are true when one is."""
    joined = any(site.k is not None for site in part_sites(patched.block(layer).attn))
    return heads.any().expand_as(heads) if joined else heads
