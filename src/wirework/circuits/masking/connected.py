"""A model under many masks, computed for its connected nodes and the distinct prefixes of prompts.

Most rows of a sparse weight matrix are zero, so that most nodes are zero under every mask: they are
left out (`connected_nodes.py`). Each distinct prefix is computed once (`prefixes.py`). Outputs and
gradients are those of `Ablation.logit_diffs`, the reference, except for rounding: sums have another
order. Where two magnitudes at an AbsTopK are almost tied, rounding can decide which one is kept.

Shapes: R masks, N nodes of all sites, C computed nodes of a site, U distinct prefixes, E distinct
tokens, P pairs, D d_model.
"""

from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.masking.compact import answer_logit_diffs, can_be_compact
from wirework.circuits.masking.connected_layers import ConnectedLayer
from wirework.circuits.masking.connected_nodes import LayerNodes, computed_channels
from wirework.circuits.masking.prefixes import Prefixes
from wirework.nn.kernels import compiled
from wirework.nn.kernels.prefix_attention import Queries
from wirework.tasks import TokenizedPairs

if TYPE_CHECKING:
    from wirework.circuits.masking.ablation import Ablation

CONNECTED_TOKENS = 16384
"""Tokens of all masks in one forward pass, before those of equal prefixes are computed once."""


def can_be_connected(ablation: "Ablation") -> bool:
    """Return whether masks can be run on a `ConnectedModel`: means, float32 and a plain CPU run."""
    return (
        ablation.activation_cache is None
        and ablation.prompt_values is None
        and can_be_compact(ablation.transformer)
        and ablation.transformer.embed.weight.dtype == torch.float32
        and compiled.is_available()
    )


class ConnectedModel:
    """The connected nodes of a model, with their gates.

    Args:
        ablation: the model, and the means of its nodes. The weights must not change while this is
            used.
    """

    def __init__(self, ablation: "Ablation") -> None:
        self._transformer = ablation.transformer
        channels = computed_channels(ablation)
        widths = ablation.space.widths
        starts = dict(zip(widths, accumulate(widths.values(), initial=0), strict=False))
        self._sizes = {site: len(some) for site, some in channels.items()}
        self._nodes = torch.cat([starts[site] + some for site, some in channels.items()])
        self._layers = [
            ConnectedLayer.of(LayerNodes(ablation, channels, layer))
            for layer in range(self._transformer.config.n_layer)
        ]
        mixing = (i for i, layer in enumerate(self._layers) if layer.attention is not None)
        self._last_mixing_layer = max(mixing, default=0)

    def logit_diffs(self, masks: Tensor, batch: TokenizedPairs) -> Tensor:
        """Return the logit difference (right minus wrong answer) per mask, in one forward pass.

        Args:
            masks: (R, N) float32, with one entry per node; gradients flow to it.
            batch: P tokenised pairs.

        Returns:
            (R, 2P).
        """
        model = self._transformer
        model.check_tokens(batch.tokens)
        prefixes = Prefixes.of(batch, positions_count=model.positions is not None)
        x, pos = self._entry(prefixes)
        x = x.expand(len(masks), -1, -1)
        of_site = self._by_site(masks)
        for number, layer in enumerate(self._layers):
            rows, queries = self._rows_after_attention(number, prefixes)
            x, pos = layer.run(x, pos, of_site, rows, queries)
        return answer_logit_diffs(model, model.norm(model.final_resid(x)), batch)

    def _entry(self, prefixes: Prefixes) -> tuple[Tensor, Tensor | None]:
        """Return the first block's input for the distinct tokens, (E, D), and their positions."""
        model = self._transformer
        x = model.embed(prefixes.entry_tokens)
        if model.positions is None:
            return x, None
        vectors = model.positions(model.config.n_ctx)[prefixes.entry_positions]
        return (x + vectors, None) if model.config.positions == "added" else (x, vectors)

    def _by_site(self, masks: Tensor) -> dict[str, Tensor]:
        """Return the gates of the computed nodes, (R, C), by site."""
        parts = masks[:, self._nodes].split_with_sizes(list(self._sizes.values()), 1)
        return dict(zip(self._sizes, parts, strict=True))

    def _rows_after_attention(
        self, layer: int, prefixes: Prefixes
    ) -> tuple[Tensor | None, Queries | None]:
        """Return the rows that are computed after a layer's attention, and its queries.

        Rows are the distinct tokens before the first attention, then the distinct prefixes, and the
        whole prompts from the last attention on.

        Returns:
            Indices among the rows before attention, None for all, and the queries, None where each
            row is a prompt.
        """
        last = prefixes.last
        if layer > self._last_mixing_layer:
            return None, None
        is_last = layer == self._last_mixing_layer
        ancestors, positions = prefixes.ancestors, prefixes.positions
        if is_last:
            ancestors, positions = ancestors[last], positions[last]
        if layer == 0:
            rows = prefixes.entries[last] if is_last else prefixes.entries
            return rows, Queries(rows, prefixes.entries[ancestors], positions)
        if is_last:
            return last, Queries(last, ancestors, positions)
        return None, Queries(torch.arange(len(positions)), ancestors, positions)
