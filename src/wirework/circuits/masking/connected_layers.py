"""One layer of a `ConnectedModel`: attention over distinct prefixes and the MLP, of computed nodes.

Shapes: R masks, S rows, C computed nodes of a site, D d_model, H heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.masking.connected_nodes import GatedSites, LayerNodes, Product, SiteGates
from wirework.nn.activation import Activation, activate
from wirework.nn.block import Block
from wirework.nn.kernels.prefix_attention import HeadChannels, Queries, prefix_attention


@dataclass(frozen=True)
class ConnectedLayer:
    """A block with the computed nodes of its sites; None for a sublayer whose output is zero."""

    block: Block
    attention: "_Attention | None"
    mlp: "_Mlp | None"

    @classmethod
    def of(cls, nodes: LayerNodes) -> "ConnectedLayer":
        """Take the computed nodes of a layer from the model."""
        return cls(
            nodes.block,
            _attention(nodes) if len(nodes.channels("attn.resid_delta")) else None,
            _mlp(nodes) if len(nodes.channels("mlp.resid_delta")) else None,
        )

    def run(
        self,
        x: Tensor,
        pos: Tensor | None,
        gates: SiteGates,
        rows: Tensor | None,
        queries: Queries | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the residual stream and the position vectors after the block.

        Args:
            x: (R, S, D).
            pos: (S, P) position vectors to concatenate; None for none.
            gates: gates of the computed nodes.
            rows: rows of `x` that are computed after attention; None for all.
            queries: what attention computes for these rows; None if there is no attention.
        """
        block = self.block
        x, delta = block.resid_in(x), None
        if self.attention is not None:
            assert queries is not None
            delta = self.attention(block.read_by_attention(x, pos), gates, queries)
        if rows is not None:
            x, pos = x.index_select(1, rows), None if pos is None else pos[rows]
        x = x if delta is None else delta.added_to(x)
        x = block.resid_mid(x.relu() if block.relu_residual else x)
        if self.mlp is not None:
            x = self.mlp(block.read_by_mlp(x, pos), gates).added_to(x)
        return block.resid_out(x.relu() if block.relu_residual else x), pos


class _Delta(NamedTuple):
    """The output of a sublayer."""

    values: Tensor
    """(R, S, C)."""
    channels: Tensor
    """(C,)."""

    def added_to(self, x: Tensor) -> Tensor:
        """Return (R, S, D) with the values added."""
        return x.index_add(-1, self.channels, self.values)


class _Attention(NamedTuple):
    """Attention whose output has connected nodes."""

    act_in: GatedSites
    to_q: Product
    q: GatedSites
    to_kv: Product
    kv: GatedSites
    n_k: int
    """Computed nodes of `k`, which precede those of `v`."""
    heads: HeadChannels
    out: Product
    resid_delta: GatedSites
    channels: Tensor
    """(C,) of the output."""

    def __call__(self, x: Tensor, gates: SiteGates, queries: Queries) -> _Delta:
        entered = self.act_in(x, gates)
        q = self.q(self.to_q(entered), gates)
        k, v = self.kv(self.to_kv(entered), gates).tensor_split([self.n_k], -1)
        y = prefix_attention(q, k, v, queries, self.heads)
        return _Delta(self.resid_delta(self.out(y), gates), self.channels)


def _attention(nodes: LayerNodes) -> _Attention:
    return _Attention(
        act_in=nodes.gated("attn.act_in"),
        to_q=nodes.product("attn.q"),
        q=nodes.gated("attn.q"),
        to_kv=nodes.product("attn.k", "attn.v"),
        kv=nodes.gated("attn.k", "attn.v"),
        n_k=len(nodes.channels("attn.k")),
        heads=_heads(nodes),
        out=nodes.product("attn.resid_delta"),
        resid_delta=nodes.gated("attn.resid_delta"),
        channels=nodes.channels("attn.resid_delta"),
    )


def _heads(nodes: LayerNodes) -> HeadChannels:
    """Return the heads with a computed value, and the pairs of their computed queries and keys."""
    attention = nodes.block.attn
    q, k, v = (nodes.channels(f"attn.{part}") for part in "qkv")
    heads = torch.unique_consecutive(v // attention.d_head)
    is_paired = torch.isin(q, k) & torch.isin(q // attention.d_head, heads)
    paired = q[is_paired]
    ends = [torch.searchsorted(some // attention.d_head, heads, right=True) for some in (paired, v)]
    sink = torch.full((len(heads),), -torch.inf)
    if attention.sink is not None:
        sink = attention.sink.detach()[heads]
    return HeadChannels(
        pairs=torch.stack([is_paired.nonzero().flatten(), torch.searchsorted(k, paired)], 1),
        ends=torch.stack(ends, 1),
        sink=sink,
        scale=attention.scale,
        window=attention.window,
    )


class _Mlp(NamedTuple):
    """An MLP whose output has connected nodes."""

    act_in: GatedSites
    up: Product
    activation: Activation
    post_act: GatedSites
    down: Product
    resid_delta: GatedSites
    channels: Tensor
    """(C,) of the output."""

    def __call__(self, x: Tensor, gates: SiteGates) -> _Delta:
        entered = self.act_in(x, gates)
        neurons = self.post_act(activate(self.up(entered), self.activation), gates)
        return _Delta(self.resid_delta(self.down(neurons), gates), self.channels)


def _mlp(nodes: LayerNodes) -> _Mlp:
    return _Mlp(
        act_in=nodes.gated("mlp.act_in"),
        up=nodes.product("mlp.post_act"),
        activation=nodes.block.mlp.activation,
        post_act=nodes.gated("mlp.post_act"),
        down=nodes.product("mlp.resid_delta"),
        resid_delta=nodes.gated("mlp.resid_delta"),
        channels=nodes.channels("mlp.resid_delta"),
    )
