"""The nodes of a model that a `ConnectedModel` computes, and the weights between them.

A node without a nonzero input weight, without bias and with mean 0 is 0 under every mask, and its
gate has no gradient. All other nodes are *connected*; they are computed, and a few others where
that is faster.

Shapes: R masks, S rows, N nodes of a site, C of them computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wirework.nn.block import Block
from wirework.nn.kernels.gated_top_k import SiteChannels, SiteTable, gated_top_k
from wirework.nn.kernels.linear import linear, linear_from_rows
from wirework.nn.kernels.sparse_linear import CompressedRows, compressed_rows

if TYPE_CHECKING:
    from wirework.circuits.masking.ablation import Ablation

_LANES = 16
"""Numbers in a vector of the kernels."""
_MAX_DENSITY = 1 / 8
"""Density up to which the small matrices between computed nodes are multiplied from their nonzero
entries: with 48 to 128 rows that took 0.4 to 0.5 of the time of dense products (AVX-512)."""

SiteGates = Mapping[str, Tensor]
"""Site to the gates of its computed nodes, (R, C)."""
Channels = Mapping[str, Tensor]
"""Site to the channels of its computed nodes, (C,) int64 ascending, for all node sites."""


class Input(NamedTuple):
    """What a site is computed from."""

    source: str
    """Site that is read."""
    module: str
    """The matrix."""
    part: int
    """Which of the sites that the matrix writes, side by side, this one is."""


INPUTS: Mapping[str, Input] = {
    "attn.q": Input("attn.act_in", "attn.qkv", 0),
    "attn.k": Input("attn.act_in", "attn.qkv", 1),
    "attn.v": Input("attn.act_in", "attn.qkv", 2),
    "attn.resid_delta": Input("attn.v", "attn.out", 0),
    "mlp.post_act": Input("mlp.act_in", "mlp.up", 0),
    "mlp.resid_delta": Input("mlp.post_act", "mlp.down", 0),
}
"""The input of each site of a layer that a matrix writes."""


@torch.no_grad()
def computed_channels(ablation: "Ablation") -> dict[str, Tensor]:
    """Return the computed channels (C,) of each site, in execution order.

    Args:
        ablation: the model, and the means of its nodes.
    """
    channels: dict[str, Tensor] = {}
    for name, width in ablation.space.widths.items():
        layer, _, site = name.partition(".")
        if site not in INPUTS:
            channels[name] = torch.arange(width)
            continue
        source, module, part = INPUTS[site]
        weight, bias = _matrix(ablation.transformer.blocks[int(layer)], module)
        rows = slice(part * width, (part + 1) * width)
        is_connected = (weight[rows][:, channels[f"{layer}.{source}"]] != 0).any(1)
        is_connected |= ablation.means[name] != 0
        if bias is not None:
            is_connected |= bias[rows] != 0
        channels[name] = _in_whole_vectors(is_connected)
    return channels


def _in_whole_vectors(is_connected: Tensor) -> Tensor:
    """Return the connected channels, and others if their number is no multiple of 16.

    Kernels compute 16 channels at once, and up to 15 more one by one, which takes longer.
    """
    missing = -int(is_connected.sum()) % _LANES
    others = (~is_connected).nonzero().flatten()[:missing]
    return is_connected.index_fill(0, others, True).nonzero().flatten()


def _matrix(block: Block, module: str) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias of a linear layer, without gradients."""
    layer = block.get_submodule(module)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    return weight.detach(), None if bias is None else bias.detach()


class GatedSites(NamedTuple):
    """Sites side by side, of which the computed nodes are gated together."""

    names: tuple[str, ...]
    table: SiteTable
    mean: Tensor
    """(C,)."""

    def __call__(self, x: Tensor, gates: SiteGates) -> Tensor:
        """Return (R, S, C) after AbsTopK, with removed nodes at their means."""
        side_by_side = torch.cat([gates[name] for name in self.names], 1)
        return gated_top_k(x, self.table, side_by_side, self.mean)


class Product(NamedTuple):
    """The rows and columns of a matrix for computed nodes."""

    weight: Tensor
    bias: Tensor | None
    rows: CompressedRows | None
    """The weight from its nonzero entries, if these are few."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> "Product":
        """Compress the weight if it has few nonzero entries."""
        n_entries = int(weight.count_nonzero())
        is_sparse = 0 < n_entries <= _MAX_DENSITY * weight.numel()
        return cls(weight, bias, compressed_rows(weight, n_entries) if is_sparse else None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return (R, S, C) of (R, S, inputs)."""
        if self.rows is not None:
            return linear_from_rows(x, self.weight, self.bias, self.rows)
        if x.shape[-1]:
            return linear(x, self.weight, self.bias)
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return bias.expand(*x.shape[:-1], -1)


@dataclass(frozen=True)
class LayerNodes:
    """The computed nodes of one layer of a model."""

    ablation: "Ablation"
    all_channels: Channels
    layer: int

    @property
    def block(self) -> Block:
        """The layer's block."""
        return self.ablation.transformer.blocks[self.layer]

    def channels(self, site: str) -> Tensor:
        """Return the computed channels (C,) of a site of the layer, such as `attn.q`."""
        return self.all_channels[f"{self.layer}.{site}"]

    def gated(self, *sites: str) -> GatedSites:
        """Return sites of the layer side by side."""
        names = tuple(f"{self.layer}.{site}" for site in sites)
        by_name = self.ablation.transformer.sites
        computed = [SiteChannels(self.all_channels[name], by_name[name].k) for name in names]
        means = [self.ablation.means[name][self.all_channels[name]] for name in names]
        return GatedSites(names, SiteTable.of(computed), torch.cat(means))

    def product(self, *sites: str) -> Product:
        """Return the product that computes sites of the same matrix side by side."""
        source, module, _ = INPUTS[sites[0]]
        rows = torch.cat([self._first_row(site) + self.channels(site) for site in sites])
        weight, bias = _matrix(self.block, module)
        weight = weight[rows][:, self.channels(source)].contiguous()
        return Product.of(weight, None if bias is None else bias[rows])

    def _first_row(self, site: str) -> int:
        return INPUTS[site].part * self.ablation.space.widths[f"{self.layer}.{site}"]
