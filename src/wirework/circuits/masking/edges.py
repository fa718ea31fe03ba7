"""Find and count the edges of a circuit: nonzero weights between two kept nodes.

The number of edges is the size of a circuit (`count_edges`). Entries of the embedding and of the
unembedding that connect tokens with kept nodes are input and output edges: they are listed, but not
counted in the size.
Everything here follows from the weights and the kept nodes. Source: Gao et al. 2025, sec. 2 and
App. A.5.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuit_format import Edge, IoEdge
from wirework.nn import Transformer

KeptNodes = Sequence[tuple[str, int]]
"""Kept nodes as (site, channel), in execution order; edges refer to them by index in this list."""


class Matrix(NamedTuple):
    """A weight matrix whose rows are channels of one site and whose columns those of another."""

    source: str
    """Site of the columns."""
    target: str
    """Site of the rows."""
    module: str
    """Name of the `nn.Linear` that contains the matrix."""
    first: int
    """Index of its first row in the weight of that module."""
    weight: Tensor
    """(target width, source width)."""

    @property
    def read(self) -> str:
        """Site whose value the module reads: `source`, or the head output `attn.y` for `attn.v`."""
        return self.source.removesuffix("v") + "y" if self.source.endswith(".v") else self.source


class MatrixEdges(NamedTuple):
    """All edges of one weight matrix between kept nodes: E edges, S source and T target nodes."""

    matrix: Matrix
    sources: Tensor
    """(S,) int64, indices of the source nodes among the kept nodes, ascending."""
    targets: Tensor
    """(T,) int64, indices of the target nodes among the kept nodes, ascending."""
    columns: Tensor
    """(S,) int64, channels of the source nodes: columns of the matrix."""
    rows: Tensor
    """(T,) int64, channels of the target nodes: rows of the matrix."""
    entries: Tensor
    """(E, 2) int64, each edge as an index into `targets` and one into `sources`."""
    weights: Tensor
    """(E,), the nonzero weight of each edge."""


@torch.no_grad()
def edges_by_matrix(transformer: Transformer, nodes: KeptNodes) -> list[MatrixEdges]:
    """Return the edges between kept nodes grouped by weight matrix, in execution order.

    - Attention: act_in to q, k and v (the rows of `qkv`); v to resid_delta (the output matrix).
    - MLP: act_in to post_act; post_act to resid_delta.

    Matrices without an edge are left out.

    Args:
        transformer: the model.
        nodes: the kept nodes.
    """
    by_site = _indices_by_site(nodes)
    kept_edges = []
    for matrix in matrices(transformer):
        columns, sources = _channels(by_site.get(matrix.source, {}), matrix.weight.device)
        rows, targets = _channels(by_site.get(matrix.target, {}), matrix.weight.device)
        between_kept = matrix.weight[rows][:, columns]
        entries = between_kept.nonzero()
        if len(entries):
            weights = between_kept[entries[:, 0], entries[:, 1]]
            kept_edges.append(
                MatrixEdges(matrix, sources, targets, columns, rows, entries, weights)
            )
    return kept_edges


def find_edges(transformer: Transformer, nodes: KeptNodes) -> list[Edge]:
    """Return all edges between kept nodes, sorted by source, then target."""
    return sorted(
        (
            edge
            for matrix_edges in edges_by_matrix(transformer, nodes)
            for edge in edges_of(matrix_edges)
        ),
        key=lambda edge: (edge.source, edge.target),
    )


def edges_of(matrix_edges: MatrixEdges) -> list[Edge]:
    """Return the edges of one matrix as `Edge` objects, in the order of `entries`."""
    row, column = matrix_edges.entries.unbind(1)
    sources, targets = matrix_edges.sources[column].tolist(), matrix_edges.targets[row].tolist()
    return [
        Edge(source=source, target=target, weight=weight)
        for source, target, weight in zip(
            sources, targets, matrix_edges.weights.tolist(), strict=True
        )
    ]


def count_edges(transformer: Transformer, nodes: KeptNodes) -> int:
    """Return the size of the circuit that keeps all edges between the kept nodes."""
    return sum(len(matrix_edges.entries) for matrix_edges in edges_by_matrix(transformer, nodes))


@torch.no_grad()
def find_io_edges(
    transformer: Transformer,
    nodes: KeptNodes,
    tokens: Mapping[int, str],
    answers: Mapping[int, str],
) -> list[IoEdge]:
    """Return the input and output edges: nonzero (un)embedding entries at kept nodes.

    Args:
        transformer: the model.
        nodes: the kept nodes.
        tokens: id to text of the prompt tokens; each nonzero embedding entry is an edge to every
            kept act_in node of the same residual channel.
        answers: id to text of the answer tokens; each nonzero unembedding entry is an edge from
            every kept resid_delta node of the same channel.

    Returns:
        Embedding entries by token, then target; then unembedding entries by source, then answer.
    """
    d_model = transformer.config.d_model  # channels of act_in above it are concatenated positions
    readers = [
        (node, channel)
        for node, (site, channel) in enumerate(nodes)
        if site.endswith("act_in") and channel < d_model
    ]
    writers = [
        (node, channel)
        for node, (site, channel) in enumerate(nodes)
        if site.endswith("resid_delta")
    ]
    inputs = [
        IoEdge(token=text, token_id=token, target=node, weight=weight)
        for token, text in sorted(tokens.items())
        for node, weight in _nonzero(transformer.embed.weight[token], readers)
    ]
    outputs = [
        IoEdge(source=node, answer=text, token_id=token, weight=weight)
        for token, text in sorted(answers.items())
        for node, weight in _nonzero(transformer.unembed.weight[token], writers)
    ]
    return inputs + sorted(outputs, key=lambda edge: (edge.source or 0, edge.token_id))


def matrices(transformer: Transformer) -> Iterator[Matrix]:
    """Yield the weight matrices whose nonzero entries can be edges, in execution order."""
    weights = dict(transformer.named_parameters())
    for layer in range(transformer.config.n_layer):
        qkv = f"blocks.{layer}.attn.qkv"
        parts = weights[f"{qkv}.weight"].chunk(3)
        for i, part in enumerate(parts):
            target = f"{layer}.attn.{'qkv'[i]}"
            yield Matrix(f"{layer}.attn.act_in", target, qkv, i * len(part), part)
        for name, source, target in (
            ("attn.out", "attn.v", "attn.resid_delta"),
            ("mlp.up", "mlp.act_in", "mlp.post_act"),
            ("mlp.down", "mlp.post_act", "mlp.resid_delta"),
        ):
            module = f"blocks.{layer}.{name}"
            weight = weights[f"{module}.weight"]
            yield Matrix(f"{layer}.{source}", f"{layer}.{target}", module, 0, weight)


def _channels(index_of: dict[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the channels of a site's kept nodes and their indices among all kept nodes, int64."""
    columns = [list(index_of), list(index_of.values())]
    channels, indices = torch.tensor(columns, dtype=torch.int64, device=device)
    return channels, indices


def _indices_by_site(nodes: KeptNodes) -> dict[str, dict[int, int]]:
    """Map site, then channel, to the index in `nodes`."""
    by_site: dict[str, dict[int, int]] = {}
    for index, (site, channel) in enumerate(nodes):
        by_site.setdefault(site, {})[channel] = index
    return by_site


def _nonzero(row: Tensor, nodes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, float]]:
    """Yield (node, entry) for each (node, channel) whose entry in `row` is nonzero."""
    entries = row[[channel for _, channel in nodes]].tolist() if nodes else []
    for (node, _), weight in zip(nodes, entries, strict=True):
        if weight:
            yield node, weight
