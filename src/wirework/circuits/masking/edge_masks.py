"""Masks over the nodes of one circuit and over the edges between them.

A removed edge between two kept nodes is mean-ablated: its target receives weight times the mean of
the source instead of weight times its activation. With all edges kept, the circuit equals the
node-only circuit. The gate of an edge has no effect when one of its end nodes is ablated.
Shapes: R masks, N nodes of all sites, n nodes and E edges of the circuit, G = n + E gates,
S source and T target nodes of the edges in one matrix.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuit_format import Edge
from wirework.circuits.masking.ablation import Ablation, Masks
from wirework.circuits.masking.edges import KeptNodes, MatrixEdges, edges_by_matrix, edges_of
from wirework.nn import Transformer
from wirework.nn.rewire import Rewiring, rewired


@dataclass(frozen=True)
class EdgeMasks(Masks):
    """Masks over a circuit: one gate per node, followed by one gate per edge."""

    ablation: Ablation
    """Node masks of the same transformer, with one gate per node (q and k not tied)."""
    places: Tensor
    """(n,) int64, flat index of each circuit node among all N nodes."""
    edges_by_matrix: tuple[MatrixEdges, ...]
    """The edges grouped by weight matrix; the edge gates follow this order."""

    @classmethod
    def of(cls, ablation: Ablation, mask: Tensor) -> "EdgeMasks":
        """Return masks for the circuit with the nodes of a mask (N,) and all edges between them."""
        places = mask.nonzero().flatten()
        kept = ablation.space.locate(places)
        return cls(ablation.untied(), places, tuple(edges_by_matrix(ablation.transformer, kept)))

    @property
    def transformer(self) -> Transformer:  # type: ignore[override]
        """The model."""
        return self.ablation.transformer

    @property
    def layers(self) -> Tensor:
        """(G,) int64, layer of each node and of the target of each edge."""
        edges = [
            torch.full((len(matrix_edges.entries),), int(matrix_edges.matrix.target.split(".")[0]))
            for matrix_edges in self.edges_by_matrix
        ]
        return torch.cat([self.ablation.layers[self.places.cpu()], *edges])

    def ablation_modes(self) -> "tuple[EdgeMasks, ...]":
        """Return these masks once per ablation mode of the nodes (resamples, then means)."""
        return tuple(replace(self, ablation=mode) for mode in self.ablation.ablation_modes())

    @property
    def n_nodes(self) -> int:
        """n, the number of nodes of the circuit."""
        return len(self.places)

    @property
    def size(self) -> int:
        """G = n + E."""
        return self.n_nodes + sum(
            len(matrix_edges.entries) for matrix_edges in self.edges_by_matrix
        )

    @property
    def kept(self) -> KeptNodes:
        """(site, channel) of each node."""
        return self.ablation.space.locate(self.places)

    def edges(self) -> list[Edge]:
        """Return all edges, in the order of the gates."""
        return [edge for matrix_edges in self.edges_by_matrix for edge in edges_of(matrix_edges)]

    def mask(self, gates: Tensor) -> Tensor:
        """Return the mask over all nodes (..., N) from the node gates in (..., G)."""
        node_mask = gates.new_zeros(*gates.shape[:-1], self.ablation.size)
        return node_mask.index_copy(-1, self.places, gates[..., : self.n_nodes])

    def without_dangling_edges(self, gates: Tensor) -> Tensor:
        """Return gates (..., G) with the edges of ablated nodes set to 0 (same outputs)."""
        parts = [
            part * self._ends_kept(matrix_edges, gates)
            for matrix_edges, part in zip(
                self.edges_by_matrix, self.gates_by_matrix(gates), strict=True
            )
        ]
        return torch.cat([gates[..., : self.n_nodes], *parts], -1)

    def compacted(self, gates: Tensor) -> tuple["EdgeMasks", Tensor]:
        """Drop the nodes whose gate in (G,) is 0; return the smaller circuit and its gates."""
        gates = self.without_dangling_edges(gates)
        remaining = EdgeMasks.of(self.ablation, self.mask(gates))
        gate_of_edge = dict(zip(self._ends(), gates[self.n_nodes :].tolist(), strict=True))
        edges = [gate_of_edge[ends] for ends in remaining._ends()]
        return remaining, torch.cat([torch.ones(remaining.n_nodes), torch.tensor(edges)])

    def without_closed(self, other: "EdgeMasks", gates: Tensor) -> Tensor:
        """Return gates (G,) that are 0 for the edges that `gates` of another circuit remove."""
        pairs = zip(other._ends(), gates[other.n_nodes :].tolist(), strict=True)
        closed = {ends for ends, gate in pairs if not gate}
        edges = [float(ends not in closed) for ends in self._ends()]
        return torch.cat([torch.ones(self.n_nodes), torch.tensor(edges)])

    def _ends(self) -> list[tuple[int, int]]:
        """Return the flat node indices of each edge's source and target."""
        places = self.places.tolist()
        return [(places[edge.source], places[edge.target]) for edge in self.edges()]

    @contextmanager
    def applied(self, gates: Tensor) -> Iterator[None]:
        """Ablate with masks (R, G) inside a `with` block."""
        gates = gates.to(self.device)
        removed: dict[str, list[_RemovedEdges]] = {}
        for matrix_edges, part in zip(
            self.edges_by_matrix, self.gates_by_matrix(gates), strict=True
        ):
            if part.requires_grad or not bool((part == 1).all()):
                closed = (1 - part) * self._ends_kept(matrix_edges, gates)
                removed.setdefault(matrix_edges.matrix.module, []).append(
                    self._removed_edges(matrix_edges, closed)
                )
        rewirings = {name: _subtract_removed(some) for name, some in removed.items()}
        with self.ablation.applied(self.mask(gates)), rewired(self.transformer, rewirings):
            yield

    def gates_by_matrix(self, gates: Tensor) -> Sequence[Tensor]:
        """Return the edge gates of (..., G) per weight matrix, each (..., E)."""
        sizes = [
            self.n_nodes,
            *(len(matrix_edges.entries) for matrix_edges in self.edges_by_matrix),
        ]
        return gates.split_with_sizes(sizes, -1)[1:]

    def _ends_kept(self, matrix_edges: MatrixEdges, gates: Tensor) -> Tensor:
        """Return (..., E), 1 for edges whose two end nodes are both kept."""
        to, out = matrix_edges.entries.unbind(1)
        return gates[..., matrix_edges.targets[to]] * gates[..., matrix_edges.sources[out]]

    def _removed_edges(self, matrix_edges: MatrixEdges, closed: Tensor) -> "_RemovedEdges":
        to, out = matrix_edges.entries.unbind(1)
        width = len(matrix_edges.columns)
        weights = closed.new_zeros(len(closed), len(matrix_edges.rows) * width)
        weights = weights.index_copy(1, to * width + out, closed * matrix_edges.weights)
        return _RemovedEdges(
            columns=matrix_edges.columns,
            rows=matrix_edges.matrix.first + matrix_edges.rows,
            source_means=self.ablation.means[matrix_edges.matrix.read][matrix_edges.columns],
            weights=weights.view(len(closed), -1, width),
        )


class _RemovedEdges(NamedTuple):
    """The edges of one weight matrix that R masks remove."""

    columns: Tensor
    """(S,) input channels of the matrix."""
    rows: Tensor
    """(T,) output channels of the matrix."""
    source_means: Tensor
    """(S,) mean activation of the input channels."""
    weights: Tensor
    """(R, T, S) weights of the removed edges, 0 where the edge is kept."""


def _subtract_removed(removed: Sequence[_RemovedEdges]) -> Rewiring:
    """Return a rewiring that subtracts removed weight times (activation - mean)."""

    def rewire(source_values: Tensor, output: Tensor) -> Tensor:
        for part in removed:
            deviation = (source_values[..., part.columns] - part.source_means).view(
                len(part.weights), -1, len(part.columns)
            )
            lost = (deviation @ part.weights.mT).view(*output.shape[:-1], -1)
            output = output.index_add(-1, part.rows, lost, alpha=-1)
        return output

    return rewire
