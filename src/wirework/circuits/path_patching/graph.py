"""The head-level graph of a transformer: writers and readers of the residual stream.

Sources, in the order in which the forward pass meets them: `embed`, then of each layer its heads
(`3.attn.5`) and its MLP (`3.mlp`). Destinations: of each layer the queries', keys' and values'
inputs of each head (`3.attn.5.q`) and the MLP's input (`3.mlp`), then `final_resid`. A destination
has an edge from every source before it.
Source: Conmy et al. 2023 (arXiv 2304.14997), sec. 3.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from wirework.circuit_format import PathEdge
from wirework.errors import InputError, number_of
from wirework.node_names import head_name

QKV = ("q", "k", "v")


@dataclass(frozen=True)
class Graph:
    """Numbered sources, destinations and path edges of a model with these layers and heads."""

    n_layer: int
    n_head: int

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources; the index of a name is the number of the source."""
        per_layer = (
            [*(head_name(layer, head) for head in range(self.n_head)), f"{layer}.mlp"]
            for layer in range(self.n_layer)
        )
        return ("embed", *(name for names in per_layer for name in names))

    @cached_property
    def destinations(self) -> tuple[str, ...]:
        """Names of the destinations; per layer queries of all heads, keys, values, the MLP."""
        heads = range(self.n_head)
        per_layer = (
            [*(f"{head_name(layer, h)}.{kind}" for kind in QKV for h in heads), f"{layer}.mlp"]
            for layer in range(self.n_layer)
        )
        return (*(name for names in per_layer for name in names), "final_resid")

    @property
    def final(self) -> int:
        """Number of the last destination, the input of the unembedding."""
        return len(self.destinations) - 1

    def head(self, layer: int, head: int) -> int:
        """Return the source number of a head."""
        return 1 + layer * (self.n_head + 1) + head

    def mlp(self, layer: int) -> int:
        """Return the source number of an MLP."""
        return self.head(layer, self.n_head)

    def head_input(self, layer: int, kind: int, head: int) -> int:
        """Return the destination number of a head's queries, keys or values (kind 0, 1, 2)."""
        return layer * (3 * self.n_head + 1) + kind * self.n_head + head

    def mlp_input(self, layer: int) -> int:
        """Return the destination number of an MLP's input."""
        return self.head_input(layer, 3, 0)

    def n_before(self, destination: int) -> int:
        """Return the number of sources before a destination: it has an edge from each."""
        layer, place = divmod(destination, 3 * self.n_head + 1)
        return self.mlp(layer) if place == 3 * self.n_head else self.head(layer, 0)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """All (source, destination), in the default order: both from the last to the first.

        Destinations: the final residual, then of each layer, the last first, the MLP, the heads'
        queries, their keys, their values, each from the last head to the first. Sources of a
        destination: from the last to the first, so that the embedding is the last. This is the
        order of the authors' code (setup_from_model of TLACDCCorrespondence).
        """
        return tuple(
            (source, destination)
            for destination in self._last_to_first()
            for source in reversed(range(self.n_before(destination)))
        )

    def _last_to_first(self) -> Iterator[int]:
        yield self.final
        for layer in reversed(range(self.n_layer)):
            yield self.mlp_input(layer)
            for kind in range(len(QKV)):
                for head in reversed(range(self.n_head)):
                    yield self.head_input(layer, kind, head)

    def named(self, edge: tuple[int, int]) -> PathEdge:
        """Return an edge with the names of its ends."""
        source, destination = edge
        return PathEdge(source=self.sources[source], target=self.destinations[destination])

    def numbered(self, edge: PathEdge | tuple[str, str]) -> tuple[int, int]:
        """Return an edge as the numbers of its ends.

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
        """Return an order of all edges as numbers, checked to contain each edge exactly once.

        Raises:
            InputError: an edge is unknown, missing or there twice.
        """
        edges = tuple(self.numbered(edge) for edge in order)
        if len(edges) != len(self.edges) or len(set(edges)) != len(edges):
            raise InputError(
                f"an order has all {len(self.edges)} path edges, each once: "
                f"got {len(edges)}, {len(set(edges))} of them different"
            )
        return edges

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], tuple[int, int]]:
        return {
            (self.sources[source], self.destinations[target]): (source, target)
            for source, target in self.edges
        }
