"""Random connected circuits with the composition of a given circuit: a control for its loss.

They have as many nodes per site and edges per weight matrix, and every node lies on a path from
prompt tokens to answers: it has an input ("fed") and an output ("read"). Nodes drawn independently
per site have almost no edges, so that control would never fail. Here nodes are drawn at random and
then moved one at a time to where they have the missing neighbours. If the circuit has disconnected
nodes at a site (they act as constants), the random circuits may have as many. Ours.
Shapes: N nodes of all sites, W nodes of one site, n of them kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.edges import matrices
from wirework.circuits.masking.nodes import NodeSpace
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

_SWEEPS = 12  # sweeps in which all badly placed nodes are moved
_ATTEMPTS = 3  # draws per requested circuit: some lack edges or are duplicates
_SUPPORT = 2.0  # weight of having an input or an output, in edges

Places = dict[str, Tensor]
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
    """Whether the target receives its value through it; a value node does not from a query."""


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
        none = {site: torch.zeros(size, dtype=torch.bool) for site, size in space.widths.items()}
        fed, read = dict(none), dict(none)
        embedded = (transformer.embed.weight[torch.unique(batch.tokens)] != 0).any(0).cpu()
        answered = (transformer.unembed.weight[torch.unique(batch.answers)] != 0).any(0).cpu()
        for site, size in space.widths.items():
            if site.endswith("act_in"):
                fed[site] = torch.cat([embedded, torch.ones(size - width, dtype=torch.bool)])
                if transformer.config.positions == "added":
                    fed[site] = torch.ones(size, dtype=torch.bool)
            elif site.endswith("resid_delta"):
                read[site] = answered
        return cls((*_edges(transformer), *_stream(space, width), *_heads(transformer)), fed, read)

    def into(self, site: str) -> list[Link]:
        """Return the links into a site."""
        return [link for link in self.links if link.target == site]

    def out_of(self, site: str) -> list[Link]:
        """Return the links out of a site."""
        return [link for link in self.links if link.source == site]

    def feeding(self, site: str, kept: Places) -> Tensor:
        """Return (W,), number of inputs of each node of a site: tokens and kept nodes."""
        links = (link for link in self.into(site) if link.feeds)
        return sum((link.forward(kept[link.source]) for link in links), self.fed[site].long())

    def reading(self, site: str, kept: Places) -> Tensor:
        """Return (W,), number of outputs of each node of a site: answers and kept nodes."""
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
        seed: of the draws.

    Returns:
        At most `count` circuits with their gates, with node sets that differ from each other and
        from the circuit. None has more nodes or edges than the circuit; if the model has few
        circuits of exactly that size, those that lack the fewest are returned.
    """
    space, generator = circuit.ablation.space, torch.Generator().manual_seed(seed)
    connections = Connections.of(circuit.transformer, batch)
    sizes = {site: int(part.sum()) for site, part in _by_site(circuit, space).items()}
    quotas, loose = _quotas(circuit, gates), _loose(circuit, gates, connections)
    allowed = {site: sum(name == site for name, _ in loose.values()) for site in sizes}
    drawn_sets = {frozenset(circuit.node_indices.tolist())}
    candidates: list[tuple[int, EdgeMasks, Tensor]] = []
    for _ in range(_ATTEMPTS * count):
        if sum(not lacks for lacks, _, _ in candidates) >= count:
            break
        draw = _Draw(connections, quotas, allowed, generator)
        edge_masks, part = draw.with_edges(circuit, draw.nodes(sizes, space))
        places = frozenset(edge_masks.node_indices.tolist())
        if places not in drawn_sets:
            drawn_sets.add(places)
            lacks = circuit.n_nodes - edge_masks.n_nodes + int(gates.sum() - part.sum())
            candidates.append((lacks, edge_masks, part))
    best = sorted(candidates, key=lambda one: one[0])[:count]
    return [(edge_masks, part) for _, edge_masks, part in best]


def _by_site(circuit: EdgeMasks, space: NodeSpace) -> dict[str, Tensor]:
    mask = torch.zeros(space.size)
    mask[circuit.node_indices.cpu()] = 1
    return space.split(mask)


def _quotas(circuit: EdgeMasks, gates: Tensor) -> dict[tuple[str, str], int]:
    """Return the number of edges per weight matrix, by (source site, target site)."""
    parts = circuit.gates_by_matrix(gates)
    return {
        (matrix_edges.matrix.source, matrix_edges.matrix.target): int(part.sum())
        for matrix_edges, part in zip(circuit.edges_by_matrix, parts, strict=True)
    }


@dataclass(frozen=True)
class _Draw:
    """Draws one random circuit."""

    connections: Connections
    quotas: Mapping[tuple[str, str], int]
    """Edges per weight matrix, by (source site, target site)."""
    allowed: Mapping[str, int]
    """Disconnected nodes allowed per site."""
    generator: torch.Generator

    def nodes(self, sizes: Mapping[str, int], space: NodeSpace) -> Places:
        """Draw nodes at random and move them until all are connected and edges suffice."""
        kept = {
            site: torch.randperm(width, generator=self.generator)[: sizes[site]]
            for site, width in space.widths.items()
        }
        for _ in range(_SWEEPS):
            bad = [site for site in kept if len(kept[site]) and not self._settled(site, kept)]
            if not bad:
                break
            for place in torch.randperm(len(bad), generator=self.generator).tolist():
                for number in range(len(kept[bad[place]])):
                    self._move_(kept, bad[place], number)
        return kept

    def _settled(self, site: str, kept: Places) -> bool:
        """Return whether a site's nodes are connected and have enough edges in and out."""
        own = kept[site]
        alive = (self.connections.feeding(site, kept)[own] > 0) & (
            self.connections.reading(site, kept)[own] > 0
        )
        links = [*self.connections.into(site), *self.connections.out_of(site)]
        enough = int((~alive).sum()) <= self.allowed[site]
        return enough and not any(self._short(link, kept) for link in links)

    def _short(self, link: Link, kept: Places) -> int:
        """Return the number of edges missing in a weight matrix."""
        if link.matrix is None:
            return 0
        there = int(link.forward(kept[link.source])[kept[link.target]].sum())
        return max(0, self.quotas.get((link.source, link.target), 0) - there)

    def _move_(self, kept: Places, site: str, number: int) -> None:
        """Move one node of a site to the channel with most of the missing neighbours."""
        own = kept[site]
        kept[site] = torch.cat([own[:number], own[number + 1 :]])
        worth = torch.zeros(len(self.connections.fed[site]))
        worth += _SUPPORT * (self.connections.feeding(site, kept) > 0)
        worth += _SUPPORT * (self.connections.reading(site, kept) > 0)
        for link in self.connections.into(site):
            others = kept[link.source]
            worth += link.forward(others).clamp(max=self._short(link, kept))
            unread = others[self.connections.reading(link.source, kept)[others] == 0]
            worth += _SUPPORT * link.forward(unread)
        for link in self.connections.out_of(site):
            others = kept[link.target]
            worth += link.backward(others).clamp(max=self._short(link, kept))
            if link.feeds:
                unfed = others[self.connections.feeding(link.target, kept)[others] == 0]
                worth += _SUPPORT * link.backward(unfed)
        worth += torch.rand(len(worth), generator=self.generator)  # random tie-break
        worth[kept[site]] = -1
        kept[site] = torch.cat([kept[site], worth.argmax()[None]])

    def with_edges(self, circuit: EdgeMasks, kept: Places) -> tuple[EdgeMasks, Tensor]:
        """Choose edges, first those that connect an otherwise disconnected node.

        Nodes that stay disconnected are dropped, except for the allowed number.
        """
        space = circuit.ablation.space
        chosen = {site: channels.tolist() for site, channels in kept.items()}
        edge_masks = EdgeMasks.of(circuit.ablation, space.gates(chosen).to(circuit.device))
        fed, read = _joined(edge_masks, self.connections)
        parts = [torch.ones(edge_masks.n_nodes)]
        for matrix_edges in edge_masks.edges_by_matrix:
            to, out = matrix_edges.entries.unbind(1)
            ends = list(
                zip(
                    matrix_edges.sources[out].tolist(),
                    matrix_edges.targets[to].tolist(),
                    strict=True,
                )
            )
            order = torch.randperm(len(ends), generator=self.generator).tolist()
            picked: list[int] = []
            for needs in (2, 1, 0):
                for place in order:
                    source, target = ends[place]
                    if place not in picked and (source not in read) + (target not in fed) >= needs:
                        picked.append(place)
                        read.add(source)
                        fed.add(target)
            part = torch.zeros(len(ends))
            part[
                picked[
                    : self.quotas.get((matrix_edges.matrix.source, matrix_edges.matrix.target), 0)
                ]
            ] = 1
            parts.append(part)
        return self._trimmed(edge_masks, torch.cat(parts))

    def _trimmed(self, edge_masks: EdgeMasks, gates: Tensor) -> tuple[EdgeMasks, Tensor]:
        while True:
            spare = dict(self.allowed)
            alive = torch.ones(edge_masks.n_nodes)
            for place, (site, _) in _loose(edge_masks, gates, self.connections).items():
                spare[site] -= 1
                alive[place] = spare[site] >= 0
            if alive.all():
                return edge_masks, gates
            edge_masks, gates = edge_masks.compacted(
                torch.cat([alive, gates[edge_masks.n_nodes :]])
            )


def _loose(
    edge_masks: EdgeMasks, gates: Tensor, connections: Connections
) -> dict[int, tuple[str, int]]:
    """Return the disconnected nodes (no input or no output) of a circuit, by index."""
    fed, read = _joined(edge_masks, connections)
    for edge, gate in zip(edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True):
        if gate:
            read.add(edge.source)
            fed.add(edge.target)
    return {p: node for p, node in enumerate(edge_masks.kept) if p not in fed or p not in read}


def _joined(edge_masks: EdgeMasks, connections: Connections) -> tuple[set[int], set[int]]:
    """Return the indices of nodes that have an input, and an output, without any edge.

    These come from tokens and answers, the residual stream, and query-key-value links of heads.
    """
    parts = _by_site(edge_masks, edge_masks.ablation.space)
    kept = {site: part.nonzero().flatten() for site, part in parts.items()}
    free = replace(
        connections, links=tuple(link for link in connections.links if link.matrix is None)
    )
    into = {site: free.feeding(site, kept) for site, channels in kept.items() if len(channels)}
    outof = {site: free.reading(site, kept) for site, channels in kept.items() if len(channels)}
    nodes = list(enumerate(edge_masks.kept))
    fed = {place for place, (site, channel) in nodes if into[site][channel]}
    return fed, {place for place, (site, channel) in nodes if outof[site][channel]}


def _edges(transformer: Transformer) -> list[Link]:
    """Return one link per weight matrix."""
    return [_matrix_link(one.source, one.target, one.weight != 0) for one in matrices(transformer)]


def _matrix_link(source: str, target: str, there: Tensor) -> Link:
    there = there.cpu()
    return Link(
        source, target,
        lambda channels: there[:, channels].sum(1),
        lambda channels: there[channels].sum(0),
        there,
    )  # fmt: skip


def _stream(space: NodeSpace, width: int) -> list[Link]:
    """Return the links through the residual stream: a write and a read of the same channel."""
    sites = list(space.widths)
    return [
        _channel_link(source, target, space.widths[target], width)
        for place, source in enumerate(sites)
        if source.endswith("resid_delta")
        for target in sites[place + 1 :]
        if target.endswith("act_in")
    ]


def _channel_link(source: str, target: str, read: int, written: int) -> Link:
    def marked(size: int, channels: Tensor) -> Tensor:
        return torch.zeros(size, dtype=torch.int64).index_fill_(0, channels, 1)

    return Link(
        source, target,
        lambda channels: marked(read, channels),
        lambda channels: marked(written, channels[channels < written]),
    )  # fmt: skip


def _heads(transformer: Transformer) -> list[Link]:
    """Return the links of queries and keys with the values of their head, which they weigh."""
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
