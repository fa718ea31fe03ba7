"""The 2L+1 residual locations: before each attention, before each MLP, before the unembedding.

A location's stream is the residual stream before the norm, as attention, the MLP or the final norm
reads it. Location 2l is before the attention of layer l, 2l+1 before its MLP, 2L before the
unembedding. Streams are recorded at sites, so a run without this pays nothing.
Source: Gao et al. 2025, sec. 2.3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from wirework.nn.transformer import Transformer


def location_names(n_layer: int) -> list[str]:
    """Return the names of all locations in order: `0.attn`, `0.mlp`, ..., `unembed`."""
    return [f"{layer}.{part}" for layer in range(n_layer) for part in ("attn", "mlp")] + ["unembed"]


def location_sites(n_layer: int) -> list[str]:
    """Return the site of each location, in the order of the locations."""
    names = [f"{layer}.{part}" for layer in range(n_layer) for part in ("resid_in", "resid_mid")]
    return [*names, "final_resid"]


@contextmanager
def recorded_streams(transformer: Transformer) -> Iterator[list[Tensor]]:
    """Record the residual streams of the forward pass that runs inside the block.

    Yields:
        List that is filled at the end of the block: (B, T, D) for each location, in order.
    """
    streams: list[Tensor] = []
    sites = location_sites(transformer.config.n_layer)
    with transformer.recorded(sites) as values:
        yield streams
    streams += [values[site] for site in sites]


def record_streams(transformer: Transformer, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a transformer once.

    Args:
        transformer: the model.
        tokens: (B, T) int64.

    Returns:
        The final normalised state (B, T, D), and the stream (B, T, D) of each location.
    """
    with recorded_streams(transformer) as streams:
        state = transformer.state(tokens)
    return state, streams


def run_from(transformer: Transformer, streams: Mapping[int, Tensor], tokens: Tensor) -> Tensor:
    """Run a transformer from residual streams that are given at some locations.

    Each stream starts at its location; earlier parts are not computed. All runs share one batch
    that grows with the layers, so that each part of the model is computed once. An edit at a site
    sees this batch.

    Args:
        transformer: the model.
        streams: (B, T, D) by location, at least one.
        tokens: (B, T) int64; only their positions are read.

    Returns:
        (R, B, T, D) final normalised states, one for each stream, by ascending location.
    """
    pos = transformer.concatenated_positions(tokens[:1])
    last = 2 * transformer.config.n_layer
    running: Tensor | None = None  # (R B, T, D)
    for location in range(min(streams), last + 1):
        block = transformer.blocks[location // 2] if location < last else None
        if running is not None and location % 2 == 0:
            running = transformer.final_resid(running) if block is None else block.resid_in(running)
        if location in streams:
            start = streams[location]
            running = start if running is None else torch.cat([running, start])
        assert running is not None
        if block is not None:
            add = block.add_mlp if location % 2 else block.add_attention
            running = add(running, pos)
    final: Tensor = transformer.norm(running)
    return final.view(len(streams), *tokens.shape, -1)
