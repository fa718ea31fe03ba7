"""Find kept path edges without effect on the output.

There are two reasons why keeping an edge changes nothing:

- No path of kept edges leads from the embedding to its source. The value of the source is then that
  of the corrupted run, which the edge contributes when it is removed as well.
- No path of kept edges leads from its destination to the output.

Shapes: M destinations, S sources, H heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.path_patching.graph import QKV
from wirework.circuits.path_patching.patched import Patched, part_sites


class EdgesWithoutEffect(NamedTuple):
    """Kept edges that carry nothing from the embedding to the output, each (M, S) bool."""

    idle: Tensor
    """Edges whose removal leaves the patched run unchanged."""
    constant: Tensor
    """Edges with a constant effect (mean and zero ablation only): their source is not reached from
    the embedding, so its value is the same for all prompts, but differs from its ablated value. For
    example, the mean output of an MLP is not its output at the mean input."""


def edges_without_effect(patched: Patched, gates: Tensor) -> EdgesWithoutEffect:
    """Return the kept edges of a patched run that have no effect on the output.

    Args:
        patched: the model, its prompts and how removed edges are ablated.
        gates: (M, S), 1 where an edge is kept.
    """
    kept = gates.bool()
    unreached = kept & ~_reached_sources(patched, kept)
    unread = kept & ~_read_destinations(patched, kept)[:, None]
    none = torch.zeros_like(kept)
    if patched.ablation == "corrupted":
        return EdgesWithoutEffect(unread | unreached, none)
    return EdgesWithoutEffect(unread, unreached & ~unread)


def _reached_sources(patched: Patched, kept: Tensor) -> Tensor:
    """Return (S,) bool, the sources that kept edges connect with the embedding."""
    graph = patched.graph
    reached = torch.zeros(len(graph.sources), dtype=torch.bool, device=kept.device)
    reached[0] = True  # the embedding
    for layer in range(graph.n_layer):
        inputs = (kept[_head_inputs(patched, layer)] & reached).any(1)
        heads = inputs.view(len(QKV), graph.n_head).any(0)
        reached[graph.head(layer, 0) : graph.mlp(layer)] = _with_coupled(patched, layer, heads)
        reached[graph.mlp(layer)] = (kept[graph.mlp_input(layer)] & reached).any()
    return reached


def _read_destinations(patched: Patched, kept: Tensor) -> Tensor:
    """Return (M,) bool, the destinations on which the output depends."""
    graph = patched.graph
    read = torch.zeros(len(graph.destinations), dtype=torch.bool, device=kept.device)
    read[graph.final] = True
    for layer in reversed(range(graph.n_layer)):
        read[graph.mlp_input(layer)] = (kept[:, graph.mlp(layer)] & read).any()
        heads = (kept[:, graph.head(layer, 0) : graph.mlp(layer)] & read[:, None]).any(0)
        heads = _with_coupled(patched, layer, heads)
        read[_head_inputs(patched, layer)] = heads.repeat(len(QKV))
    return read


def _head_inputs(patched: Patched, layer: int) -> slice:
    """Return the destination numbers of all queries, keys and values of a layer."""
    graph = patched.graph
    return slice(graph.head_input(layer, 0, 0), graph.mlp_input(layer))


def _with_coupled(patched: Patched, layer: int, heads: Tensor) -> Tensor:
    """Return (H,) bool: `heads`, or all heads if one is true and AbsTopK acts on all together."""
    are_coupled = any(site.k is not None for site in part_sites(patched.block(layer).attn))
    return heads.any().expand_as(heads) if are_coupled else heads
