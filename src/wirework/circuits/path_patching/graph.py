"""The head-level graph of a transformer: which components write and read the residual stream.

- A source writes to the residual stream. In execution order: `embed`; for each layer its heads
  (`3.attn.5`: layer 3, head 5), then its MLP (`3.mlp`).
- A destination reads the residual stream. In execution order: for each layer the inputs of the
  queries, of the keys and of the values of all heads (`3.attn.5.q`), then the input of the MLP
  (`3.mlp`); at the end `final_resid`, which the unembedding reads.
- A path edge leads from a source to a destination after it; every such pair is an edge.

Sources and destinations are numbered from 0 in this order.
Source: Conmy et al. 2023 (arXiv 2304.14997), sec. 3.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random

from wirework.circuit_format import PathEdge
from wirework.errors import InputError, number_of
from wirework.node_names import head_name

QKV = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """Numbered sources, destinations and path edges of a model with these layers and heads."""

    n_layer: int
    """Number of layers."""
    n_head: int
    """Number of heads per layer."""

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources; the index of a name is the number of its source."""
        per_layer = (
            [*(head_name(layer, head) for head in range(self.n_head)), f"{layer}.mlp"]
            for layer in range(self.n_layer)
        )
        return ("embed", *(name for names in per_layer for name in names))

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names of the destinations; the index of a name is the number of its destination."""
        heads = range(self.n_head)
        per_layer = (
            [*(f"{head_name(layer, h)}.{kind}" for kind in QKV for h in heads), f"{layer}.mlp"]
            for layer in range(self.n_layer)
        )
        return (*(name for names in per_layer for name in names), "final_resid")

    @property
    def final(self) -> int:
        """Number of the last destination, `final_resid`."""
        return len(self.destinations) - 1

    def head(self, layer: int, head: int) -> int:
        """Return the source number of a head."""
        return 1 + layer * (self.n_head + 1) + head

    def mlp(self, layer: int) -> int:
        """Return the source number of an MLP."""
        return self.head(layer, self.n_head)

    def head_input(self, layer: int, kind: int, head: int) -> int:
        """Return the destination number of a head's queries, keys or values.

        Args:
            layer: number of the layer.
            kind: 0 for queries, 1 for keys, 2 for values.
            head: number of the head in its layer.
        """
        return layer * (3 * self.n_head + 1) + kind * self.n_head + head

    def mlp_input(self, layer: int) -> int:
        """Return the destination number of an MLP's input."""
        return self.head_input(layer, 3, 0)

    def n_before(self, destination: int) -> int:
        """Return how many sources come before a destination; it has an edge from each of them."""
        layer, index_in_layer = divmod(destination, 3 * self.n_head + 1)
        return self.mlp(layer) if index_in_layer == 3 * self.n_head else self.head(layer, 0)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All edges (source, destination) in ACDC's default order, from the last to the first.

        - Destinations: `final_resid`; then for each layer, the last first: the MLP, the queries,
          the keys and the values, each from the last head to the first.
        - Sources of a destination: from the last to the first, so that `embed` is the last.

        This is the order of the authors' code (setup_from_model of TLACDCCorrespondence).
        """
        return tuple(
            (source, destination)
            for destination in self._destinations_from_last()
            for source in reversed(range(self.n_before(destination)))
        )

    def auto_circuit_edges(self, seed: int) -> tuple[tuple[int, int], ...]:
        """Return all edges (source, destination) in the order of auto-circuit's ACDC.

        It sorts edges by the layer of their destination, the last first, and by nothing else. A
        layer is an MLP, or all queries, keys and values of a block's heads. Within a layer its
        order is that of a Python set, which differs between processes; here it is drawn.

        Args:
            seed: seed of the order within each layer.

        Source: https://github.com/UFO-101/auto-circuit, `acdc_prune_scores` (version 1.0).
        """
        layers: dict[tuple[int, bool], list[tuple[int, int]]] = {}
        for edge in self.edges:  # destinations of one layer follow each other
            layer, index_in_layer = divmod(edge[1], 3 * self.n_head + 1)
            layers.setdefault((layer, index_in_layer == 3 * self.n_head), []).append(edge)
        generator = Random(seed)
        for edges in layers.values():
            generator.shuffle(edges)
        return tuple(edge for edges in layers.values() for edge in edges)

    def _destinations_from_last(self) -> Iterator[int]:
        yield self.final
        for layer in reversed(range(self.n_layer)):
            yield self.mlp_input(layer)
            for kind in range(len(QKV)):
                for head in reversed(range(self.n_head)):
                    yield self.head_input(layer, kind, head)

    def named(self, edge: tuple[int, int]) -> PathEdge:
        """Return an edge (source, destination) with the names of its ends."""
        source, destination = edge
        return PathEdge(source=self.sources[source], target=self.destinations[destination])

    def numbered(self, edge: PathEdge | tuple[str, str]) -> tuple[int, int]:
        """Return an edge as (source, destination) numbers.

        Args:
            edge: a path edge, or the names (source, destination).

        Raises:
            InputError: there is no such edge in this graph.
        """
        source, target = (edge.source, edge.target) if isinstance(edge, PathEdge) else edge
        edge_numbers = self._numbers.get((source, target))
        if edge_numbers is None:
            raise InputError(
                f"no path edge {source} -> {target} in a graph of "
                f"{number_of(self.n_layer, 'layer')} and "
                f"{number_of(self.n_head, 'head')} (edges are written as 'embed' -> '0.attn.0.q')"
            )
        return edge_numbers

    def ordered(self, order: Iterable[PathEdge | tuple[str, str]]) -> tuple[tuple[int, int], ...]:
        """Return an order of all edges as numbers, after checking that each edge is in it once.

        Args:
            order: path edges, or (source, destination) names.

        Returns:
            (source, destination) numbers, in the same order.

        Raises:
            InputError: an edge is unknown, missing or repeated.
        """
        edges = tuple(self.numbered(edge) for edge in order)
        if len(edges) != len(self.edges) or len(set(edges)) != len(edges):
            raise InputError(
                f"an order must contain all {len(self.edges)} path edges, each once: "
                f"got {len(edges)}, {len(set(edges))} of them different"
            )
        return edges

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], tuple[int, int]]:
        return {
            (self.sources[source], self.destinations[target]): (source, target)
            for source, target in self.edges
        }
