"""Random connected circuits of the same make-up as a given one: a control for its loss.

As many nodes at each site and edges in each matrix, and every node between a prompt's tokens and
the answers: something feeds it and something reads it. A set of nodes drawn site by site has hardly
an edge and carries nothing, so no such control could ever fail. Here nodes are drawn at random and
then moved, one at a time, to where they have the neighbours that are missing. Where a circuit has
nodes at a site that nothing feeds or reads (they stand for a constant), so may a random one. Ours.
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

_SWEEPS = 12  # times that all badly placed nodes of a draw are moved
_ATTEMPTS = 3  # draws for each circuit asked for: some lack edges, come twice or are the circuit
_SUPPORT = 2.0  # what being read, or fed, is worth in edges

Places = dict[str, Tensor]
"""Site to the channels (n,) of its nodes, int64."""


class Link(NamedTuple):
    """A way for nodes of one site to act on nodes of a later one."""

    source: str
    target: str
    forward: Callable[[Tensor], Tensor]
    """Takes channels of the source, returns (W,): how many of them each target is linked with."""
    backward: Callable[[Tensor], Tensor]
    """Likewise from channels of the target to the sources."""
    matrix: Tensor | None = None
    """(targets, sources) bool of a weight matrix, whose links are edges."""
    feeds: bool = True
    """Whether the target gets its value over it; a value node does not get its from a query."""


@dataclass(frozen=True)
class Layout:
    """Where a model's nodes could be joined, for the prompts and answers of a task."""

    links: tuple[Link, ...]
    fed: Mapping[str, Tensor]
    """Site to (W,) bool: channels that a prompt's tokens or positions reach over no other node."""
    read: Mapping[str, Tensor]
    """Site to (W,) bool: channels that the answers' unembedding reads."""

    @classmethod
    @torch.no_grad()
    def of(cls, transformer: Transformer, batch: TokenizedPairs) -> "Layout":
        """Look at the nonzero weights of a model.

        Args:
            transformer: the model.
            batch: a task, whose prompt tokens feed channels and whose answers read them.
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
        """Return the links whose target a site is."""
        return [link for link in self.links if link.target == site]

    def out_of(self, site: str) -> list[Link]:
        """Return the links whose source a site is."""
        return [link for link in self.links if link.source == site]

    def feeding(self, site: str, kept: Places) -> Tensor:
        """Return (W,), how much feeds each node of a site: tokens, and kept nodes."""
        links = (link for link in self.into(site) if link.feeds)
        return sum((link.forward(kept[link.source]) for link in links), self.fed[site].long())

    def reading(self, site: str, kept: Places) -> Tensor:
        """Return (W,), how much reads each node of a site: answers, and kept nodes."""
        links = self.out_of(site)
        return sum((link.backward(kept[link.target]) for link in links), self.read[site].long())


def random_circuits(
    circuit: EdgeMasks, gates: Tensor, batch: TokenizedPairs, count: int, seed: int
) -> list[tuple[EdgeMasks, Tensor]]:
    """Draw connected circuits with the nodes per site and the edges per matrix of a given one.

    Args:
        circuit: its nodes, and all edges between them.
        gates: (G,), 0 for the edges that it does without.
        batch: a task.
        count: how many to draw.
        seed: of the draws.

    Returns:
        At most `count` of them, each another set of nodes than the circuit's and than each other's,
        with its gates. Those with fewest nodes and edges too few, where draws with as many as the
        circuit are rare in this model; none has more.
    """
    space, generator = circuit.ablation.space, torch.Generator().manual_seed(seed)
    layout = Layout.of(circuit.transformer, batch)
    sizes = {site: int(part.sum()) for site, part in _by_site(circuit, space).items()}
    quotas, loose = _quotas(circuit, gates), _loose(circuit, gates, layout)
    allowed = {site: sum(name == site for name, _ in loose.values()) for site in sizes}
    drawn_sets = {frozenset(circuit.places.tolist())}
    candidates: list[tuple[int, EdgeMasks, Tensor]] = []
    for _ in range(_ATTEMPTS * count):
        if sum(not lacks for lacks, _, _ in candidates) >= count:
            break
        draw = _Draw(layout, quotas, allowed, generator)
        edge_masks, part = draw.wired(circuit, draw.nodes(sizes, space))
        places = frozenset(edge_masks.places.tolist())
        if places not in drawn_sets:
            drawn_sets.add(places)
            lacks = circuit.n_nodes - edge_masks.n_nodes + int(gates.sum() - part.sum())
            candidates.append((lacks, edge_masks, part))
    best = sorted(candidates, key=lambda one: one[0])[:count]
    return [(edge_masks, part) for _, edge_masks, part in best]


def _by_site(circuit: EdgeMasks, space: NodeSpace) -> dict[str, Tensor]:
    mask = torch.zeros(space.size)
    mask[circuit.places.cpu()] = 1
    return space.split(mask)


def _quotas(circuit: EdgeMasks, gates: Tensor) -> dict[tuple[str, str], int]:
    """Return how many edges a circuit has in each matrix, by source and target site."""
    parts = circuit.gates_by_matrix(gates)
    return {
        (matrix_edges.matrix.source, matrix_edges.matrix.target): int(part.sum())
        for matrix_edges, part in zip(circuit.edges_by_matrix, parts, strict=True)
    }


@dataclass(frozen=True)
class _Draw:
    """Draws one circuit."""

    layout: Layout
    quotas: Mapping[tuple[str, str], int]
    """Edges in each matrix, by source and target site."""
    allowed: Mapping[str, int]
    """Nodes of each site that nothing need feed or read."""
    generator: torch.Generator

    def nodes(self, sizes: Mapping[str, int], space: NodeSpace) -> Places:
        """Return nodes at random, moved until each is fed and read and there are edges enough."""
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
        """Whether a site's nodes are fed and read, and edges into it and out of it enough."""
        own = kept[site]
        alive = (self.layout.feeding(site, kept)[own] > 0) & (
            self.layout.reading(site, kept)[own] > 0
        )
        links = [*self.layout.into(site), *self.layout.out_of(site)]
        enough = int((~alive).sum()) <= self.allowed[site]
        return enough and not any(self._short(link, kept) for link in links)

    def _short(self, link: Link, kept: Places) -> int:
        """Return how many edges a matrix lacks."""
        if link.matrix is None:
            return 0
        there = int(link.forward(kept[link.source])[kept[link.target]].sum())
        return max(0, self.quotas.get((link.source, link.target), 0) - there)

    def _move_(self, kept: Places, site: str, number: int) -> None:
        """Put one node of a site where it has most of the neighbours that are missing."""
        own = kept[site]
        kept[site] = torch.cat([own[:number], own[number + 1 :]])
        worth = torch.zeros(len(self.layout.fed[site]))
        worth += _SUPPORT * (self.layout.feeding(site, kept) > 0)
        worth += _SUPPORT * (self.layout.reading(site, kept) > 0)
        for link in self.layout.into(site):
            others = kept[link.source]
            worth += link.forward(others).clamp(max=self._short(link, kept))
            unread = others[self.layout.reading(link.source, kept)[others] == 0]
            worth += _SUPPORT * link.forward(unread)
        for link in self.layout.out_of(site):
            others = kept[link.target]
            worth += link.backward(others).clamp(max=self._short(link, kept))
            if link.feeds:
                unfed = others[self.layout.feeding(link.target, kept)[others] == 0]
                worth += _SUPPORT * link.backward(unfed)
        worth += torch.rand(len(worth), generator=self.generator)  # which of equal ones
        worth[kept[site]] = -1
        kept[site] = torch.cat([kept[site], worth.argmax()[None]])

    def wired(self, circuit: EdgeMasks, kept: Places) -> tuple[EdgeMasks, Tensor]:
        """Choose edges, those first that feed or read a node that nothing else does.

        Nodes that nothing feeds or reads then are left out, but for those allowed.
        """
        space = circuit.ablation.space
        chosen = {site: channels.tolist() for site, channels in kept.items()}
        edge_masks = EdgeMasks.of(circuit.ablation, space.gates(chosen).to(circuit.device))
        fed, read = _joined(edge_masks, self.layout)
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
            for place, (site, _) in _loose(edge_masks, gates, self.layout).items():
                spare[site] -= 1
                alive[place] = spare[site] >= 0
            if alive.all():
                return edge_masks, gates
            edge_masks, gates = edge_masks.compacted(
                torch.cat([alive, gates[edge_masks.n_nodes :]])
            )


def _loose(edge_masks: EdgeMasks, gates: Tensor, layout: Layout) -> dict[int, tuple[str, int]]:
    """Return the nodes of a circuit that nothing feeds or nothing reads, by their place in it."""
    fed, read = _joined(edge_masks, layout)
    for edge, gate in zip(edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True):
        if gate:
            read.add(edge.source)
            fed.add(edge.target)
    return {p: node for p, node in enumerate(edge_masks.kept) if p not in fed or p not in read}


def _joined(edge_masks: EdgeMasks, layout: Layout) -> tuple[set[int], set[int]]:
    """Return the places of a circuit's nodes that are fed, and that are read, without any edge.

    By tokens and answers, over the residual stream and within heads.
    """
    parts = _by_site(edge_masks, edge_masks.ablation.space)
    kept = {site: part.nonzero().flatten() for site, part in parts.items()}
    free = replace(layout, links=tuple(link for link in layout.links if link.matrix is None))
    into = {site: free.feeding(site, kept) for site, channels in kept.items() if len(channels)}
    outof = {site: free.reading(site, kept) for site, channels in kept.items() if len(channels)}
    nodes = list(enumerate(edge_masks.kept))
    fed = {place for place, (site, channel) in nodes if into[site][channel]}
    return fed, {place for place, (site, channel) in nodes if outof[site][channel]}


def _edges(transformer: Transformer) -> list[Link]:
    """Return a link for each weight matrix."""
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
    """Return the links over the residual stream: what is written and read at one channel."""
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
