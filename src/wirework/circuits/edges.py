"""Edges: nonzero weights whose two ends are kept nodes, and the entries that join tokens to nodes.

Pure functions of weights and kept nodes. Source: Gao et al. 2025, sec. 2 and App. A.5.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from wirework.circuit_format import Edge, IoEdge
from wirework.nn import Transformer

Kept = Sequence[tuple[str, int]]
"""Kept nodes as (site, channel), in execution order; an edge names them by their place here."""


@torch.no_grad()
def find_edges(transformer: Transformer, nodes: Kept) -> list[Edge]:
    """Return the edges between kept nodes, sorted by source, then target.

    act_in joins q, k and v by the query, key and value rows of `qkv`; v joins resid_delta by the
    output matrix (through the head); in the MLP act_in joins post_act, post_act joins resid_delta.
    """
    places = _places(nodes)
    edges = [
        edge
        for source, target, matrix in _matrices(transformer)
        for edge in _between(matrix, places.get(source, {}), places.get(target, {}))
    ]
    return sorted(edges, key=lambda edge: (edge.source, edge.target))


@torch.no_grad()
def count_edges(transformer: Transformer, nodes: Kept) -> int:
    """Return how many edges `find_edges` would, without making them."""
    places = _places(nodes)
    return sum(
        int(_part(matrix, places.get(source, {}), places.get(target, {})).count_nonzero())
        for source, target, matrix in _matrices(transformer)
    )


@torch.no_grad()
def find_io_edges(
    transformer: Transformer,
    nodes: Kept,
    tokens: Mapping[int, str],
    answers: Mapping[int, str],
) -> list[IoEdge]:
    """Return the edges that join the circuit to text, one for each nonzero entry and node.

    Args:
        transformer: the model.
        nodes: the kept ones.
        tokens: id to text of the tokens of the prompts; their embedding entries are joined to each
            kept act_in node of the same residual channel.
        answers: id to text of the answers; their unembedding entries are joined to each kept
            resid_delta node of the same channel.

    Returns:
        Embedding entries by token, then target; then unembedding entries by source, then answer.
    """
    width = transformer.config.d_model
    reads = [(i, c) for i, (site, c) in enumerate(nodes) if site.endswith("act_in") and c < width]
    writes = [(i, c) for i, (site, c) in enumerate(nodes) if site.endswith("resid_delta")]
    ins = [
        IoEdge(token=text, token_id=token, target=place, weight=weight)
        for token, text in sorted(tokens.items())
        for place, weight in _nonzero(transformer.embed.weight[token], reads)
    ]
    outs = [
        IoEdge(source=place, answer=text, token_id=token, weight=weight)
        for token, text in sorted(answers.items())
        for place, weight in _nonzero(transformer.unembed.weight[token], writes)
    ]
    return ins + sorted(outs, key=lambda edge: (edge.source or 0, edge.token_id))


def _matrices(transformer: Transformer) -> Iterator[tuple[str, str, Tensor]]:
    """Yield source site, target site and the matrix (target width, source width) between them."""
    weights = dict(transformer.named_parameters())
    for layer in range(transformer.config.n_layer):
        parts = weights[f"blocks.{layer}.attn.qkv.weight"].chunk(3)
        for part, matrix in zip("qkv", parts, strict=True):
            yield f"{layer}.attn.act_in", f"{layer}.attn.{part}", matrix
        for part, source, target in (
            ("attn.out", "attn.v", "attn.resid_delta"),
            ("mlp.up", "mlp.act_in", "mlp.post_act"),
            ("mlp.down", "mlp.post_act", "mlp.resid_delta"),
        ):
            weight = weights[f"blocks.{layer}.{part}.weight"]
            yield f"{layer}.{source}", f"{layer}.{target}", weight


def _between(matrix: Tensor, sources: dict[int, int], targets: dict[int, int]) -> Iterator[Edge]:
    """Yield the nonzero entries between channels; each dict maps a channel to a node's place."""
    columns, rows = list(sources), list(targets)
    part = _part(matrix, sources, targets).cpu()
    for row, column in part.nonzero().tolist():
        weight = float(part[row, column])
        yield Edge(source=sources[columns[column]], target=targets[rows[row]], weight=weight)


def _part(matrix: Tensor, sources: dict[int, int], targets: dict[int, int]) -> Tensor:
    """Return the entries (targets, sources) of the channels that are the keys."""
    return matrix[list(targets)][:, list(sources)]


def _places(nodes: Kept) -> dict[str, dict[int, int]]:
    """Site to channel to place in `nodes`."""
    places: dict[str, dict[int, int]] = {}
    for place, (site, channel) in enumerate(nodes):
        places.setdefault(site, {})[channel] = place
    return places


def _nonzero(row: Tensor, ends: Sequence[tuple[int, int]]) -> Iterator[tuple[int, float]]:
    """Yield a node's place and the row's entry at its channel, where that is not zero."""
    entries = row[[channel for _, channel in ends]].tolist() if ends else []
    for (place, _), weight in zip(ends, entries, strict=True):
        if weight:
            yield place, weight
