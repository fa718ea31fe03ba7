"""Masks over the nodes of one circuit and over the edges between them.

- A removed edge between two kept nodes is mean-ablated: its target receives the weight times the
  mean of the source, instead of the weight times its activation.
- If all edges are kept, the result is that of masks over the nodes alone.
- The gate of an edge has no effect if one of its two nodes is ablated.

Shapes: R masks, N nodes of all sites, n nodes and E edges of the circuit, G = n + E gates,
S source and T target nodes of the edges in one matrix.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuit_format import EMBED, Edge
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.compact import CompactCircuit, Weights
from wirework.circuits.masking.edges import KeptNodes, MatrixEdges, edges_by_matrix, edges_of
from wirework.circuits.masking.masks import Masks
from wirework.circuits.masking.removed_entries import RemovedEntries
from wirework.config import LossReduction
from wirework.nn import Transformer
from wirework.nn.rewire import Rewiring, rewired
from wirework.renamed_names import old_arguments, old_attributes
from wirework.tasks import TokenizedPairs


@old_arguments(places="node_indices")
@old_attributes(
    bundles="edges_by_matrix",
    places="node_indices",
    reduced="compacted",
    settled="without_dangling_edges",
)
@dataclass(frozen=True)
class EdgeMasks(Masks):
    """Masks over a circuit: one gate per node, followed by one gate per edge."""

    ablation: Ablation
    """Node masks of the same transformer, with one gate per node (q and k not tied)."""
    node_indices: Tensor
    """(n,) int64, index of each circuit node among all N nodes, ascending."""
    edges_by_matrix: tuple[MatrixEdges, ...]
    """The edges grouped by weight matrix; the edge gates follow this order."""
    removed_entries: RemovedEntries | None = None
    """Removed embedding entries, of one mask or one per mask; None if there are none."""

    @classmethod
    def of(cls, ablation: Ablation, mask: Tensor) -> "EdgeMasks":
        """Return masks for the circuit of some nodes and all edges between them.

        Args:
            ablation: node masks of the model. Excluded nodes are no longer so, as `mask` decides.
            mask: (N,), nonzero at the nodes of the circuit.
        """
        node_indices = mask.nonzero().flatten()
        edges = edges_by_matrix(ablation.transformer, ablation.space.locate(node_indices))
        of_all_nodes = replace(ablation.untied(), excluded=None)
        return cls(of_all_nodes, node_indices, tuple(edges))

    @property
    def transformer(self) -> Transformer:  # type: ignore[override]
        """The model."""
        return self.ablation.transformer

    @property
    def layers(self) -> Tensor:
        """(G,) int64, the layer of each node, then that of the target of each edge."""
        edges = [
            torch.full((len(matrix_edges.entries),), int(matrix_edges.matrix.target.split(".")[0]))
            for matrix_edges in self.edges_by_matrix
        ]
        return torch.cat([self.ablation.layers[self.node_indices.cpu()], *edges])

    @property
    def is_resampled(self) -> bool:
        """Whether removed nodes take resampled values."""
        return self.ablation.is_resampled

    @property
    def loss_reduction(self) -> LossReduction:
        """How losses and targets combine the two prompts of a pair."""
        return self.ablation.loss_reduction

    def ablation_modes(self) -> "tuple[EdgeMasks, ...]":
        """Return these masks once per ablation mode of the nodes; the last is that of the means."""
        return tuple(replace(self, ablation=mode) for mode in self.ablation.ablation_modes())

    def withstands(self, gates: Tensor, batch: TokenizedPairs, target: float) -> bool:
        """Return whether a mask stays within a target under attack; see `Masks.withstands`."""
        adversary = self.ablation.adversary
        return adversary is None or not adversary(self, gates, batch, target)

    def of_batch(self, batch: TokenizedPairs) -> "EdgeMasks":
        """Return the masks with the values of a batch's prompts; see `Masks.of_batch`."""
        return replace(self, ablation=self.ablation.of_batch(batch))

    @property
    def n_nodes(self) -> int:
        """n, the number of nodes of the circuit."""
        return len(self.node_indices)

    @property
    def size(self) -> int:
        """G = n + E, the number of gates per mask."""
        return self.n_nodes + sum(
            len(matrix_edges.entries) for matrix_edges in self.edges_by_matrix
        )

    @property
    def kept(self) -> KeptNodes:
        """(site, channel) of each node of the circuit."""
        return self.ablation.space.locate(self.node_indices)

    def edges(self) -> list[Edge]:
        """Return all edges between the nodes, in the order of the gates."""
        return [edge for matrix_edges in self.edges_by_matrix for edge in edges_of(matrix_edges)]

    def mask(self, gates: Tensor) -> Tensor:
        """Return the mask over all nodes (..., N) from the node gates in (..., G)."""
        node_mask = gates.new_zeros(*gates.shape[:-1], self.ablation.size)
        return node_mask.index_copy(-1, self.node_indices, gates[..., : self.n_nodes])

    def without_dangling_edges(self, gates: Tensor) -> Tensor:
        """Return gates (..., G) with the edges of ablated nodes closed; outputs stay the same."""
        parts = [
            part * self._ends_kept(matrix_edges, gates)
            for matrix_edges, part in zip(
                self.edges_by_matrix, self.gates_by_matrix(gates), strict=True
            )
        ]
        return torch.cat([gates[..., : self.n_nodes], *parts], -1)

    def compacted(self, gates: Tensor) -> tuple["EdgeMasks", Tensor]:
        """Drop the ablated nodes of one mask.

        Args:
            gates: (G,).

        Returns:
            Masks over the kept nodes and the edges between them, and gates for them.
        """
        gates = self.without_dangling_edges(gates)
        smaller = EdgeMasks.of(self.ablation, self.mask(gates))
        smaller = replace(smaller, removed_entries=self.removed_entries)
        gate_of_edge = dict(zip(self._edge_ends(), gates[self.n_nodes :].tolist(), strict=True))
        edge_gates = [gate_of_edge[ends] for ends in smaller._edge_ends()]
        return smaller, torch.cat([torch.ones(smaller.n_nodes), torch.tensor(edge_gates)])

    def without_closed(self, other: "EdgeMasks", gates: Tensor) -> Tensor:
        """Return gates (G,) that keep all but the edges that a mask of another circuit removes.

        Args:
            other: masks over another circuit of the same model.
            gates: a mask of `other`.
        """
        other_gates = zip(other._edge_ends(), gates[other.n_nodes :].tolist(), strict=True)
        removed = {ends for ends, gate in other_gates if not gate}
        edge_gates = [float(ends not in removed) for ends in self._edge_ends()]
        return torch.cat([torch.ones(self.n_nodes), torch.tensor(edge_gates)])

    def _edge_ends(self) -> list[tuple[int, int]]:
        """Return the indices of each edge's source and target among all nodes of the model."""
        indices = self.node_indices.tolist()
        return [(indices[edge.source], indices[edge.target]) for edge in self.edges()]

    @contextmanager
    def applied(self, gates: Tensor) -> Iterator[None]:
        """Ablate with masks (R, G) inside a `with` block; see `Masks.applied`."""
        gates = gates.to(self.device)
        by_module: dict[str, list[_RemovedEdges]] = {}
        for matrix_edges, edge_gates in zip(
            self.edges_by_matrix, self.gates_by_matrix(gates), strict=True
        ):
            if edge_gates.requires_grad or not bool((edge_gates == 1).all()):
                removed_share = (1 - edge_gates) * self._ends_kept(matrix_edges, gates)
                by_module.setdefault(matrix_edges.matrix.module, []).append(
                    self._removed_edges(matrix_edges, removed_share)
                )
        rewirings = {name: _subtract_removed(removed) for name, removed in by_module.items()}
        if self.removed_entries is not None:
            rewirings[EMBED] = self.removed_entries.rewiring(self.ablation.means[EMBED])
        with self.ablation.applied(self.mask(gates)), rewired(self.transformer, rewirings):
            yield

    def compact(self, gates: Tensor) -> CompactCircuit | None:
        """Return a small model of one mask (G,); see `Masks.compact`."""
        if not bool(((gates == 0) | (gates == 1)).all()):
            return None
        removed = self.removed_entries
        if removed is not None and not bool(((removed.kept == 0) | (removed.kept == 1)).all()):
            return None
        return self.ablation.compact(
            self.mask(gates), self._weights_without_removed(gates), removed
        )

    def _weights_without_removed(self, gates: Tensor) -> Weights:
        """Return a function that gives each linear layer's weight and bias under a mask (G,).

        A removed edge has the weight 0, and the bias gets what it adds at its source's mean.
        """
        by_matrix = list(zip(self.edges_by_matrix, self.gates_by_matrix(gates), strict=True))

        def weights(name: str) -> tuple[Tensor, Tensor | None]:
            layer = self.transformer.get_submodule(name)
            weight: Tensor = layer.weight  # type: ignore[assignment]
            bias: Tensor | None = layer.bias  # type: ignore[assignment]
            for matrix_edges, edge_gates in by_matrix:
                if matrix_edges.matrix.module != name or bool((edge_gates == 1).all()):
                    continue
                removed = (1 - edge_gates) * self._ends_kept(matrix_edges, gates) > 0
                row, column = matrix_edges.entries[removed].unbind(1)
                rows = matrix_edges.matrix.first + matrix_edges.rows[row]
                columns = matrix_edges.columns[column]
                means = self.ablation.means[matrix_edges.matrix.read][columns]
                bias = weight.new_zeros(len(weight)) if bias is None else bias
                bias = bias.index_add(0, rows, matrix_edges.weights[removed] * means)
                weight = weight.index_put((rows, columns), weight.new_zeros(()))
            return weight, bias

        return weights

    def gates_by_matrix(self, gates: Tensor) -> Sequence[Tensor]:
        """Return the edge gates in (..., G), by weight matrix: (..., edges of the matrix) each."""
        sizes = [
            self.n_nodes,
            *(len(matrix_edges.entries) for matrix_edges in self.edges_by_matrix),
        ]
        return gates.split_with_sizes(sizes, -1)[1:]

    def _ends_kept(self, matrix_edges: MatrixEdges, gates: Tensor) -> Tensor:
        """Return (..., edges of the matrix), 1 for edges whose two nodes are both kept."""
        row, column = matrix_edges.entries.unbind(1)
        return gates[..., matrix_edges.targets[row]] * gates[..., matrix_edges.sources[column]]

    def _removed_edges(self, matrix_edges: MatrixEdges, removed_share: Tensor) -> "_RemovedEdges":
        """Collect the removed edges of one weight matrix.

        Args:
            matrix_edges: all its edges.
            removed_share: (R, edges of the matrix), 1 for removed and 0 for kept edges.
        """
        row, column = matrix_edges.entries.unbind(1)
        width = len(matrix_edges.columns)
        weights = removed_share.new_zeros(len(removed_share), len(matrix_edges.rows) * width)
        removed_weights = removed_share * matrix_edges.weights
        weights = weights.index_copy(1, row * width + column, removed_weights)
        return _RemovedEdges(
            columns=matrix_edges.columns,
            rows=matrix_edges.matrix.first + matrix_edges.rows,
            source_means=self.ablation.means[matrix_edges.matrix.read][matrix_edges.columns],
            weights=weights.view(len(removed_share), -1, width),
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
    """Return a rewiring that replaces the activation by the mean in every removed edge.

    It subtracts weight times (activation - mean) from the output of the module.
    """

    def rewire(source_values: Tensor, output: Tensor) -> Tensor:
        for edges in removed:
            deviations = (source_values[..., edges.columns] - edges.source_means).view(
                len(edges.weights), -1, len(edges.columns)
            )
            contribution = (deviations @ edges.weights.mT).view(*output.shape[:-1], -1)
            output = output.index_add(-1, edges.rows, contribution, alpha=-1)
        return output

    return rewire
