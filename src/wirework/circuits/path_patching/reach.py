"""Which kept path edges carry anything: from the embedding, and to the output.

Removing an edge replaces its source's value by the ablated one. Where no kept edge reaches the
source, its value in the patched run is that of the corrupted run, which is the ablated one: kept or
removed, the edge brings the same. Where nothing that the output depends on reads the target, the
edge changes nothing either.
Shapes: M destinations, S sources.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import Patched, part_sites


class Carrying(NamedTuple):
    """Kept edges by what they carry, each (M, S) bool."""

    idle: Tensor
    """Without them the patched run is the same."""
    constant: Tensor
    """No kept edge reaches their source, which then has one value for all prompts; it is not the
    ablated one, as the mean of a value is not the value at the means."""


def carrying(patched: Patched, gates: Tensor) -> Carrying:
    """Sort out the edges of a patched run that carry nothing from the embedding to the output.

    Args:
        patched: the model and how removed edges are ablated.
        gates: (M, S), 1 where an edge is kept.
    """
    kept = gates.bool()
    unreached = kept & ~_reached(patched, kept)
    unread = kept & ~_read(patched, kept)[:, None]
    none = torch.zeros_like(kept)
    if patched.ablation == "corrupted":
        return Carrying(unread | unreached, none)
    return Carrying(unread, unreached & ~unread)


def _reached(patched: Patched, kept: Tensor) -> Tensor:
    """Return (S,) bool, the sources that the embedding reaches over kept edges."""
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
    """Return (M,) bool, the destinations that the output depends on."""
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
    """Return (H,), all heads where one is and AbsTopK over their queries, keys or values acts."""
    joined = any(site.k is not None for site in part_sites(patched.block(layer).attn))
    return heads.any().expand_as(heads) if joined else heads
