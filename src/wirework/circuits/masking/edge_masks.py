"""Masks over the nodes of one circuit and over the edges between them.

A removed edge between two kept nodes gives its target what its source gives on average: weight
times mean. So a circuit of all its edges is that of its nodes alone, and one that carries nothing
can go. Where a node is frozen, the gates of its edges mean nothing.
Shapes: R masks, N nodes of all sites, n nodes and E edges of the circuit, G = n + E gates,
S sources and T targets of the edges in one matrix.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuit_format import Edge
from wirework.circuits.masking.ablation import Ablation, Masks
from wirework.circuits.masking.edges import Kept, MatrixEdges, bundles, edges_of
from wirework.nn import Transformer
from wirework.nn.rewire import Rewiring, rewired


@dataclass(frozen=True)
class EdgeMasks(Masks):
    """Gates of a circuit: first one for each of its nodes, then one for each edge between them."""

    ablation: Ablation
    """Of the same transformer, nodes not tied."""
    places: Tensor
    """(n,) int64, where each node stands among all N."""
    bundles: tuple[MatrixEdges, ...]
    """The edges by matrix; their gates follow in this order."""

    @classmethod
    def of(cls, ablation: Ablation, mask: Tensor) -> "EdgeMasks":
        """Return the gates of the circuit whose nodes are in a mask (N,), all edges included."""
        places = mask.nonzero().flatten()
        kept = ablation.space.locate(places)
        return cls(ablation.untied(), places, tuple(bundles(ablation.transformer, kept)))

    @property
    def transformer(self) -> Transformer:  # type: ignore[override]
        """The model."""
        return self.ablation.transformer

    @property
    def layers(self) -> Tensor:
        """(G,) int64, the layer of each node and of the matrix of each edge."""
        edges = [
            torch.full((len(bundle.at),), int(bundle.matrix.target.split(".")[0]))
            for bundle in self.bundles
        ]
        return torch.cat([self.ablation.layers[self.places.cpu()], *edges])

    def ablation_modes(self) -> "tuple[EdgeMasks, ...]":
        """Return the same edges over each view of the nodes."""
        return tuple(replace(self, ablation=view) for view in self.ablation.ablation_modes())

    @property
    def n_nodes(self) -> int:
        """n."""
        return len(self.places)

    @property
    def size(self) -> int:
        """G = n + E."""
        return self.n_nodes + sum(len(bundle.at) for bundle in self.bundles)

    @property
    def kept(self) -> Kept:
        """Site and channel of each node."""
        return self.ablation.space.locate(self.places)

    def edges(self) -> list[Edge]:
        """Return each edge, in the order of the gates."""
        return [edge for bundle in self.bundles for edge in edges_of(bundle)]

    def mask(self, gates: Tensor) -> Tensor:
        """Return (..., N) with the nodes' gates of (..., G) in their places."""
        whole = gates.new_zeros(*gates.shape[:-1], self.ablation.size)
        return whole.index_copy(-1, self.places, gates[..., : self.n_nodes])

    def settled(self, gates: Tensor) -> Tensor:
        """Return gates (..., G) with the edges of frozen nodes closed, which changes nothing."""
        parts = [
            part * self._ends_kept(bundle, gates)
            for bundle, part in zip(self.bundles, self.by_bundle(gates), strict=True)
        ]
        return torch.cat([gates[..., : self.n_nodes], *parts], -1)

    def reduced(self, gates: Tensor) -> tuple["EdgeMasks", Tensor]:
        """Leave out the nodes that are closed in gates (G,); return the rest with its gates."""
        gates = self.settled(gates)
        left = EdgeMasks.of(self.ablation, self.mask(gates))
        open_ = dict(zip(self._ends(), gates[self.n_nodes :].tolist(), strict=True))
        edges = [open_[ends] for ends in left._ends()]
        return left, torch.cat([torch.ones(left.n_nodes), torch.tensor(edges)])

    def without_closed(self, other: "EdgeMasks", gates: Tensor) -> Tensor:
        """Return gates (G,), closed for the edges that `gates` of another circuit close."""
        pairs = zip(other._ends(), gates[other.n_nodes :].tolist(), strict=True)
        closed = {ends for ends, gate in pairs if not gate}
        edges = [float(ends not in closed) for ends in self._ends()]
        return torch.cat([torch.ones(self.n_nodes), torch.tensor(edges)])

    def _ends(self) -> list[tuple[int, int]]:
        """Return the places among all N nodes of each edge's source and target."""
        places = self.places.tolist()
        return [(places[edge.source], places[edge.target]) for edge in self.edges()]

    @contextmanager
    def applied(self, gates: Tensor) -> Iterator[None]:
        """Put masks (R, G) on the transformer for a `with` block."""
        gates = gates.to(self.device)
        cuts: dict[str, list[_Cut]] = {}
        for bundle, part in zip(self.bundles, self.by_bundle(gates), strict=True):
            if part.requires_grad or not bool((part == 1).all()):
                closed = (1 - part) * self._ends_kept(bundle, gates)
                cuts.setdefault(bundle.matrix.module, []).append(self._cut(bundle, closed))
        rewirings = {name: _without(some) for name, some in cuts.items()}
        with self.ablation.applied(self.mask(gates)), rewired(self.transformer, rewirings):
            yield

    def by_bundle(self, gates: Tensor) -> Sequence[Tensor]:
        """Return the edges' parts of (..., G), each (..., E)."""
        sizes = [self.n_nodes, *(len(bundle.at) for bundle in self.bundles)]
        return gates.split_with_sizes(sizes, -1)[1:]

    def _ends_kept(self, bundle: MatrixEdges, gates: Tensor) -> Tensor:
        """Return (..., E), 1 where both ends of an edge are kept."""
        to, out = bundle.at.unbind(1)
        return gates[..., bundle.targets[to]] * gates[..., bundle.sources[out]]

    def _cut(self, bundle: MatrixEdges, closed: Tensor) -> "_Cut":
        to, out = bundle.at.unbind(1)
        width = len(bundle.columns)
        lost = closed.new_zeros(len(closed), len(bundle.rows) * width)
        lost = lost.index_copy(1, to * width + out, closed * bundle.weights)
        return _Cut(
            columns=bundle.columns,
            rows=bundle.matrix.first + bundle.rows,
            rest=self.ablation.means[bundle.matrix.read][bundle.columns],
            lost=lost.view(len(closed), -1, width),
        )


class _Cut(NamedTuple):
    """What R masks take out of one matrix."""

    columns: Tensor
    """(S,) channels that are read."""
    rows: Tensor
    """(T,) channels that are written."""
    rest: Tensor
    """(S,) what those that are read are on average."""
    lost: Tensor
    """(R, T, S) weights that are closed, 0 where open."""


def _without(cuts: Sequence[_Cut]) -> Rewiring:
    def rewire(read: Tensor, given: Tensor) -> Tensor:
        for cut in cuts:
            carried = (read[..., cut.columns] - cut.rest).view(len(cut.lost), -1, len(cut.columns))
            gone = (carried @ cut.lost.mT).view(*given.shape[:-1], -1)
            given = given.index_add(-1, cut.rows, gone, alpha=-1)
        return given

    return rewire
