"""Random connected circuits with the composition of a given circuit: a control for its loss.

They have as many nodes per site and edges per weight matrix as the circuit. Every node lies on a
path from prompt tokens to answers: it has an input (it is *fed*) and an output (it is *read*). If
the circuit has disconnected nodes at a site, which act as constants, the random circuits may have
as many.

Nodes drawn independently per site would have almost no edges, so that the control could never fail.
Here nodes are drawn at random and then moved, one at a time, to channels where they have the
missing neighbours. This control is ours.
Shapes: N nodes of all sites, W nodes of one site, n of them kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.edges import MatrixEdges, matrices
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

_SWEEPS = 12
"""How often all nodes of badly connected sites are moved."""
_ATTEMPTS = 3
"""Draws per requested circuit; some draws lack edges or repeat an earlier one."""
_CONNECTION_WORTH = 2.0
"""Worth of an input or an output for a disconnected node, where a missing edge is worth 1."""

KeptChannels = dict[str, Tensor]
"""Site to the channels (n,) of its kept nodes, int64."""


class Link(NamedTuple):
    """Possible connections from the nodes of one site to those of a later site."""

    source: str
    target: str
    forward: Callable[[Tensor], Tensor]
    """Maps source channels to (W,): with how many of them each target channel is connected."""
    backward: Callable[[Tensor], Tensor]
    """Maps target channels to the same count per source channel."""
    matrix: Tensor | None = None
    """(targets, sources) bool, nonzero entries of a weight matrix; None for other connections."""
    feeds: bool = True
    """Whether the source is an input of the target. A query or key is no input of a value: it only
    changes how strongly the value is weighted."""


@dataclass(frozen=True)
class Connections:
    """All possible connections of a model's nodes, for the prompts and answers of a task."""

    links: tuple[Link, ...]
    fed: Mapping[str, Tensor]
    """Site to (W,) bool: channels that token or position embeddings write to directly."""
    read: Mapping[str, Tensor]
    """Site to (W,) bool: channels that the unembedding of the answers reads directly."""

    @classmethod
    @torch.no_grad()
    def of(cls, transformer: Transformer, batch: TokenizedPairs) -> "Connections":
        """Derive the connections from the nonzero weights of a model.

        Args:
            transformer: the model.
            batch: tokenised pairs; prompt tokens feed channels, answers read them.
        """
        space, width = NodeSpace.of(transformer), transformer.config.d_model
        no_channel = {
            site: torch.zeros(size, dtype=torch.bool) for site, size in space.widths.items()
        }
        fed, read = dict(no_channel), dict(no_channel)
        by_tokens = (transformer.embed.weight[torch.unique(batch.tokens)] != 0).any(0).cpu()
        by_answers = (transformer.unembed.weight[torch.unique(batch.answers)] != 0).any(0).cpu()
        for site, size in space.widths.items():
            if site.endswith("act_in"):
                fed[site] = torch.cat([by_tokens, torch.ones(size - width, dtype=torch.bool)])
                if transformer.config.positions == "added":
                    fed[site] = torch.ones(size, dtype=torch.bool)
            elif site.endswith("resid_delta"):
                read[site] = by_answers
        return cls((*_edges(transformer), *_stream(space, width), *_heads(transformer)), fed, read)

    def into(self, site: str) -> list[Link]:
        """Return the links into a site."""
        return [link for link in self.links if link.target == site]

    def out_of(self, site: str) -> list[Link]:
        """Return the links out of a site."""
        return [link for link in self.links if link.source == site]

    def feeding(self, site: str, kept: KeptChannels) -> Tensor:
        """Return (W,), the number of inputs of each node of a site: tokens and kept nodes."""
        links = (link for link in self.into(site) if link.feeds)
        return sum((link.forward(kept[link.source]) for link in links), self.fed[site].long())

    def reading(self, site: str, kept: KeptChannels) -> Tensor:
        """Return (W,), the number of outputs of each node of a site: answers and kept nodes."""
        links = self.out_of(site)
        return sum((link.backward(kept[link.target]) for link in links), self.read[site].long())


def random_circuits(
    circuit: EdgeMasks, gates: Tensor, batch: TokenizedPairs, count: int, seed: int
) -> list[tuple[EdgeMasks, Tensor]]:
    """Draw connected circuits with the nodes per site and the edges per matrix of a given one.

    Args:
        circuit: masks over its nodes and all edges between them.
        gates: (G,), 0 for removed edges.
        batch: tokenised pairs of the task.
        count: number of circuits.
        seed: seed of the draws.

    Returns:
        At most `count` circuits with their gates, with node sets that differ from each other and
        from the circuit. None has more nodes or edges than the circuit; if the model has few
        circuits of exactly that size, those that lack the fewest are returned.
    """
    space, generator = circuit.ablation.space, torch.Generator().manual_seed(seed)
    connections = Connections.of(circuit.transformer, batch)
    sizes = {site: int(mask.sum()) for site, mask in _by_site(circuit, space).items()}
    disconnected = _disconnected(circuit, gates, connections)
    allowed = {site: sum(name == site for name, _ in disconnected.values()) for site in sizes}
    draw = _Draw(connections, _edge_counts(circuit, gates), allowed, generator)
    node_sets = {frozenset(circuit.node_indices.tolist())}
    candidates: list[tuple[int, EdgeMasks, Tensor]] = []
    for _ in range(_ATTEMPTS * count):
        if sum(n_missing == 0 for n_missing, _, _ in candidates) >= count:
            break
        drawn, drawn_gates = draw.with_edges(circuit, draw.nodes(sizes, space))
        node_set = frozenset(drawn.node_indices.tolist())
        if node_set not in node_sets:
            node_sets.add(node_set)
            n_missing = circuit.n_nodes - drawn.n_nodes + int(gates.sum() - drawn_gates.sum())
            candidates.append((n_missing, drawn, drawn_gates))
    best = sorted(candidates, key=lambda candidate: candidate[0])[:count]
    return [(drawn, drawn_gates) for _, drawn, drawn_gates in best]


def _by_site(circuit: EdgeMasks, space: NodeSpace) -> dict[str, Tensor]:
    """Return the mask (W,) of a circuit's nodes at each site."""
    mask = torch.zeros(space.size)
    mask[circuit.node_indices.cpu()] = 1
    return space.split(mask)


def _edge_counts(circuit: EdgeMasks, gates: Tensor) -> dict[tuple[str, str], int]:
    """Return the number of kept edges per weight matrix, by (source site, target site)."""
    by_matrix = zip(circuit.edges_by_matrix, circuit.gates_by_matrix(gates), strict=True)
    return {
        (matrix_edges.matrix.source, matrix_edges.matrix.target): int(edge_gates.sum())
        for matrix_edges, edge_gates in by_matrix
    }


@dataclass(frozen=True)
class _Draw:
    """Draws random circuits, one at a time."""

    connections: Connections
    edge_counts: Mapping[tuple[str, str], int]
    """Edges per weight matrix, by (source site, target site)."""
    allowed: Mapping[str, int]
    """Disconnected nodes allowed per site."""
    generator: torch.Generator

    def nodes(self, sizes: Mapping[str, int], space: NodeSpace) -> KeptChannels:
        """Draw nodes at random and move them until all are connected and edges suffice.

        Args:
            sizes: number of nodes per site.
            space: the nodes of the model.
        """
        kept = {
            site: torch.randperm(width, generator=self.generator)[: sizes[site]]
            for site, width in space.widths.items()
        }
        for _ in range(_SWEEPS):
            sites = [site for site in kept if len(kept[site]) and not self._is_done(site, kept)]
            if not sites:
                break
            for number in torch.randperm(len(sites), generator=self.generator).tolist():
                for node in range(len(kept[sites[number]])):
                    self._move_(kept, sites[number], node)
        return kept

    def _is_done(self, site: str, kept: KeptChannels) -> bool:
        """Return whether a site's nodes are connected and have enough edges in and out."""
        channels = kept[site]
        is_connected = (self.connections.feeding(site, kept)[channels] > 0) & (
            self.connections.reading(site, kept)[channels] > 0
        )
        if int((~is_connected).sum()) > self.allowed[site]:
            return False
        links = [*self.connections.into(site), *self.connections.out_of(site)]
        return not any(self._n_missing_edges(link, kept) for link in links)

    def _n_missing_edges(self, link: Link, kept: KeptChannels) -> int:
        """Return how many edges fewer than wanted are possible in a weight matrix."""
        if link.matrix is None:
            return 0
        n_possible = int(link.forward(kept[link.source])[kept[link.target]].sum())
        return max(0, self.edge_counts.get((link.source, link.target), 0) - n_possible)

    def _move_(self, kept: KeptChannels, site: str, node: int) -> None:
        """Move one node of a site to the channel with most of the missing neighbours."""
        channels = kept[site]
        kept[site] = torch.cat([channels[:node], channels[node + 1 :]])
        worth = torch.zeros(len(self.connections.fed[site]))
        worth += _CONNECTION_WORTH * (self.connections.feeding(site, kept) > 0)
        worth += _CONNECTION_WORTH * (self.connections.reading(site, kept) > 0)
        for link in self.connections.into(site):
            sources = kept[link.source]
            worth += link.forward(sources).clamp(max=self._n_missing_edges(link, kept))
            unread = sources[self.connections.reading(link.source, kept)[sources] == 0]
            worth += _CONNECTION_WORTH * link.forward(unread)
        for link in self.connections.out_of(site):
            targets = kept[link.target]
            worth += link.backward(targets).clamp(max=self._n_missing_edges(link, kept))
            if link.feeds:
                unfed = targets[self.connections.feeding(link.target, kept)[targets] == 0]
                worth += _CONNECTION_WORTH * link.backward(unfed)
        worth += torch.rand(len(worth), generator=self.generator)  # random tie-break
        worth[kept[site]] = -1
        kept[site] = torch.cat([kept[site], worth.argmax()[None]])

    def with_edges(self, circuit: EdgeMasks, kept: KeptChannels) -> tuple[EdgeMasks, Tensor]:
        """Choose edges between some nodes, as many per weight matrix as wanted.

        Nodes that stay disconnected are dropped, except for the allowed number.

        Args:
            circuit: masks of the model.
            kept: the nodes.

        Returns:
            Masks over the nodes and all edges between them, and the gates of the chosen edges.
        """
        channels = {site: kept_channels.tolist() for site, kept_channels in kept.items()}
        mask = circuit.ablation.space.gates(channels).to(circuit.device)
        drawn = EdgeMasks.of(circuit.ablation, mask)
        fed, read = _connected_without_edges(drawn, self.connections)
        gates = [torch.ones(drawn.n_nodes)]
        for matrix_edges in drawn.edges_by_matrix:
            order = self._edge_order(matrix_edges, fed, read)
            sites = matrix_edges.matrix.source, matrix_edges.matrix.target
            edge_gates = torch.zeros(len(order))
            edge_gates[order[: self.edge_counts.get(sites, 0)]] = 1
            gates.append(edge_gates)
        return self._without_disconnected(drawn, torch.cat(gates))

    def _edge_order(self, matrix_edges: MatrixEdges, fed: set[int], read: set[int]) -> list[int]:
        """Order the edges of a matrix at random, first those that connect a disconnected node.

        Args:
            matrix_edges: the edges.
            fed: nodes that have an input; the targets of the edges are added.
            read: nodes that have an output; the sources of the edges are added.
        """
        row, column = matrix_edges.entries.unbind(1)
        sources, targets = matrix_edges.sources[column].tolist(), matrix_edges.targets[row].tolist()
        shuffled = torch.randperm(len(sources), generator=self.generator).tolist()
        order: list[int] = []
        for n_connected in (2, 1, 0):
            for edge in shuffled:
                source, target = sources[edge], targets[edge]
                n_new = (source not in read) + (target not in fed)
                if edge not in order and n_new >= n_connected:
                    order.append(edge)
                    read.add(source)
                    fed.add(target)
        return order

    def _without_disconnected(
        self, edge_masks: EdgeMasks, gates: Tensor
    ) -> tuple[EdgeMasks, Tensor]:
        """Drop disconnected nodes above the allowed number until none is left to drop."""
        while True:
            n_allowed = dict(self.allowed)
            is_kept = torch.ones(edge_masks.n_nodes)
            for node, (site, _) in _disconnected(edge_masks, gates, self.connections).items():
                n_allowed[site] -= 1
                is_kept[node] = n_allowed[site] >= 0
            if is_kept.all():
                return edge_masks, gates
            edge_masks, gates = edge_masks.compacted(
                torch.cat([is_kept, gates[edge_masks.n_nodes :]])
            )


def _disconnected(
    edge_masks: EdgeMasks, gates: Tensor, connections: Connections
) -> dict[int, tuple[str, int]]:
    """Return the disconnected nodes (no input or no output) of a circuit, by index."""
    fed, read = _connected_without_edges(edge_masks, connections)
    for edge, gate in zip(edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True):
        if gate:
            read.add(edge.source)
            fed.add(edge.target)
    return {
        index: node
        for index, node in enumerate(edge_masks.kept)
        if index not in fed or index not in read
    }


def _connected_without_edges(
    edge_masks: EdgeMasks, connections: Connections
) -> tuple[set[int], set[int]]:
    """Return which nodes of a circuit have an input, and which an output, without any edge.

    These come from tokens and answers, the residual stream, and the queries, keys and values of
    heads.

    Returns:
        Indices of the nodes with an input, and of those with an output.
    """
    masks = _by_site(edge_masks, edge_masks.ablation.space)
    kept = {site: mask.nonzero().flatten() for site, mask in masks.items()}
    without_matrices = replace(
        connections, links=tuple(link for link in connections.links if link.matrix is None)
    )
    used_sites = [site for site, channels in kept.items() if len(channels)]
    n_inputs = {site: without_matrices.feeding(site, kept) for site in used_sites}
    n_outputs = {site: without_matrices.reading(site, kept) for site in used_sites}
    nodes = list(enumerate(edge_masks.kept))
    fed = {index for index, (site, channel) in nodes if n_inputs[site][channel]}
    return fed, {index for index, (site, channel) in nodes if n_outputs[site][channel]}


def _edges(transformer: Transformer) -> list[Link]:
    """Return one link per weight matrix."""
    return [
        _matrix_link(matrix.source, matrix.target, matrix.weight != 0)
        for matrix in matrices(transformer)
    ]


def _matrix_link(source: str, target: str, is_nonzero: Tensor) -> Link:
    is_nonzero = is_nonzero.cpu()
    return Link(
        source, target,
        lambda channels: is_nonzero[:, channels].sum(1),
        lambda channels: is_nonzero[channels].sum(0),
        is_nonzero,
    )  # fmt: skip


def _stream(space: NodeSpace, width: int) -> list[Link]:
    """Return the links through the residual stream: a write and a read of the same channel."""
    sites = list(space.widths)
    return [
        _channel_link(source, target, space.widths[target], width)
        for number, source in enumerate(sites)
        if source.endswith("resid_delta")
        for target in sites[number + 1 :]
        if target.endswith("act_in")
    ]


def _channel_link(source: str, target: str, n_read: int, n_written: int) -> Link:
    """Return the link of equal channels of two sites, which have these numbers of channels.

    The target may have more channels than the source: concatenated positions.
    """

    def marked(size: int, channels: Tensor) -> Tensor:
        return torch.zeros(size, dtype=torch.int64).index_fill_(0, channels, 1)

    return Link(
        source, target,
        lambda channels: marked(n_read, channels),
        lambda channels: marked(n_written, channels[channels < n_written]),
    )  # fmt: skip


def _heads(transformer: Transformer) -> list[Link]:
    """Return the links of queries and keys with the values of their head, which they weight."""
    config = transformer.config
    return [
        _head_link(f"{layer}.attn.{kind}", f"{layer}.attn.v", config.n_head, config.d_head)
        for layer in range(config.n_layer)
        for kind in "qk"
    ]


def _head_link(source: str, target: str, n_head: int, d_head: int) -> Link:
    def in_head(channels: Tensor) -> Tensor:
        return torch.bincount(channels // d_head, minlength=n_head).repeat_interleave(d_head)

    return Link(source, target, in_head, in_head, None, feeds=False)
