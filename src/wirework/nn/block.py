"""A block of the transformer: attention and MLP, each with its sites.

Gao et al. 2025, App. A.1; with `AblatedInputs` a block runs the ablated stream of Ferrao et al.
2025. Shapes: B sequences, T tokens, D d_model, H heads, K d_head, M d_mlp, P d_pos.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wirework.config import ModelConfig, SiteKind
from wirework.nn.kernels.attention import causal_attention, last_position_attention
from wirework.nn.kernels.linear import Linear
from wirework.nn.kernels.norm import RMSNorm
from wirework.nn.kernels.own_position import own_position_attention
from wirework.nn.kernels.sparse_gate import SparseMask, dense_mask
from wirework.nn.kernels.sparse_mlp import sparse_mlp
from wirework.nn.positions import match_positions, select_positions
from wirework.nn.sites import Site, all_constant


class AblatedInputs(NamedTuple):
    """Inputs of a block in the ablated stream: clean keys and values, and masks.

    A token attends to earlier positions of the clean stream and to its own position in the ablated
    stream. Units outside its masks are set to zero. Source: Ferrao et al. 2025.
    """

    k: Tensor
    """(B, T, H*K) keys of the clean stream."""
    v: Tensor
    """(B, T, H*K) values of the clean stream."""
    attention: Tensor
    """(B, T, H*K) mask of the channels of the head outputs."""
    neurons: Tensor | SparseMask
    """(B, T, M) mask of the neurons, dense or sparse."""
    y: Tensor | None = None
    """(B, T, H*K) head outputs, if known: where both streams read the same, those of the clean one.
    None to compute them."""


class Block(nn.Module):
    """Attention, then MLP, each reading the normed residual stream and adding to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        width = config.d_model
        self.resid_in = Site(width)
        self.norm1 = make_norm(config, width)
        self.pos_norm1 = make_norm(config, config.d_pos) if config.d_pos else None
        self.attn = Attention(config, layer)
        self.resid_mid = Site(width, config.site_k("resid_mid"))
        self.norm2 = make_norm(config, width)
        self.pos_norm2 = make_norm(config, config.d_pos) if config.d_pos else None
        self.mlp = MLP(config)
        self.resid_out = Site(width, config.site_k("resid_out"))
        self.relu_residual = config.residual_activation == "relu"

    @property
    def mixes_tokens(self) -> bool:
        """Whether the output at a token can depend on other tokens: attention is not ablated."""
        return not all_constant(self.attn, self.attn.resid_delta)

    def forward(
        self,
        x: Tensor,
        pos: Tensor | None,
        last_positions: Tensor | None = None,
        ablated: AblatedInputs | None = None,
    ) -> Tensor:
        """Return the residual stream (B, T, D) after the block.

        Args:
            x: (B, T, D), or (B, 1, D) with `last_positions`.
            pos: (B, T, P) position vectors to concatenate; None for none.
            last_positions: (B,) the only position to compute in each sequence; the result is then
                (B, 1, D).
            ablated: clean keys and values and masks, if `x` is the ablated stream; not together
                with `last_positions`.
        """
        x = self.add_attention(self.resid_in(x), pos, last_positions, ablated)
        return self.add_mlp(x, match_positions(x, pos, last_positions), ablated)

    def add_attention(
        self,
        x: Tensor,
        pos: Tensor | None,
        last_positions: Tensor | None = None,
        ablated: AblatedInputs | None = None,
    ) -> Tensor:
        """Return the residual stream that the MLP reads, of the one that attention reads.

        Args:
            x: (B, T, D), the output of the site `resid_in`.
            pos: as in `forward`; a batch of 1 serves all sequences.
            last_positions: as in `forward`.
            ablated: as in `forward`.

        Returns:
            (B, T, D), the output of the site `resid_mid`; (B, 1, D) with `last_positions`.
        """
        if ablated is not None and ablated.y is not None:
            delta = self.attn.write(ablated.y, ablated)
        else:
            delta = self.attn(
                self.read_by_attention(x, match_positions(x, pos, last_positions)),
                last_positions,
                ablated,
            )
        if last_positions is not None:
            x = select_positions(x, last_positions)
        x = x + delta
        out: Tensor = self.resid_mid(x.relu() if self.relu_residual else x)
        return out

    def add_mlp(
        self, x: Tensor, pos: Tensor | None, ablated: AblatedInputs | None = None
    ) -> Tensor:
        """Return the residual stream after the block, of the one that the MLP reads.

        Args:
            x: (B, T, D), the output of the site `resid_mid`.
            pos: position vectors of the same tokens, as in `forward`.
            ablated: as in `forward`.

        Returns:
            (B, T, D), the output of the site `resid_out`.
        """
        x = x + self.mlp(self.read_by_mlp(x, pos), ablated)
        out: Tensor = self.resid_out(x.relu() if self.relu_residual else x)
        return out

    def read_by_attention(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Return the input of attention, (..., T, D + P), for a residual stream (..., T, D)."""
        return _read(x, self.norm1, pos, self.pos_norm1)

    def read_by_mlp(self, x: Tensor, pos: Tensor | None) -> Tensor:
        """Return the input of the MLP, (..., T, D + P), for a residual stream (..., T, D)."""
        return _read(x, self.norm2, pos, self.pos_norm2)


class Attention(nn.Module):
    """Causal attention of H heads of K channels; sites hold the heads side by side, head-major."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.d_head = config.d_head
        inner = config.n_head * config.d_head
        width_in = config.site_width("attn.act_in")
        self.act_in = _site(config, "attn.act_in")
        self.qkv = Linear(width_in, 3 * inner, bias=config.qkv_bias)
        self.q = _site(config, "attn.q")
        self.k = _site(config, "attn.k")
        self.v = _site(config, "attn.v")
        self.sink = nn.Parameter(torch.zeros(config.n_head)) if config.sinks else None
        self.scale = config.d_head**-0.5 if config.attention_scale == "rsqrt" else 1.0
        windows = config.attention_windows
        self.window = None if windows is None else windows[layer]
        self.y = Site(inner)
        self.out = Linear(inner, config.d_model, bias=config.bias)
        self.resid_delta = _site(config, "attn.resid_delta")

    def forward(
        self, x: Tensor, last_positions: Tensor | None = None, ablated: AblatedInputs | None = None
    ) -> Tensor:
        """Return the output of attention.

        Args:
            x: (B, T, D + P) normed residual stream and positions.
            last_positions: (B,) as in `Block.forward`.
            ablated: as in `Block.forward`.

        Returns:
            (B, T, D) to add to the residual stream, or (B, 1, D) with `last_positions`.
        """
        if all_constant(self, self.resid_delta):
            return self.resid_delta.constant_value(
                x if last_positions is None else select_positions(x, last_positions)
            )
        q, k, v = self.qkv(self.act_in(x)).chunk(3, -1)  # each (B, T, H*K)
        if last_positions is not None:
            q = select_positions(q, last_positions)
        q, k, v = self.q(q), self.k(k), self.v(v)
        q, k, v = self._heads(q, k, v)
        if ablated is not None:
            past_k, past_v = self._heads(ablated.k, ablated.v)
            y = own_position_attention(
                q, past_k, past_v, k, v, sink=self.sink, scale=self.scale, window=self.window
            )
        elif last_positions is None:
            y = causal_attention(q, k, v, sink=self.sink, scale=self.scale, window=self.window)
        else:
            y = last_position_attention(
                q, k, v, last_positions, sink=self.sink, scale=self.scale, window=self.window
            )
        return self.write(self.y(y.transpose(1, 2).flatten(2)), ablated)

    def write(self, y: Tensor, ablated: AblatedInputs | None = None) -> Tensor:
        """Return (B, T, D) to add to the residual stream, of head outputs (B, T, H*K)."""
        if ablated is not None:
            y = y * ablated.attention
        delta: Tensor = self.resid_delta(self.out(y))
        return delta

    def _heads(self, *parts: Tensor) -> Iterator[Tensor]:
        """Yield (B, H, T, K) of each (B, T, H*K)."""
        for part in parts:
            yield part.view(*part.shape[:-1], -1, self.d_head).transpose(1, 2)


class MLP(nn.Module):
    """One hidden layer of M neurons."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.act_in = _site(config, "mlp.act_in")
        self.up = Linear(config.site_width("mlp.act_in"), config.d_mlp, bias=config.bias)
        self.activation = config.activation
        self.post_act = _site(config, "mlp.post_act")
        self.down = Linear(config.d_mlp, config.d_model, bias=config.bias)
        self.resid_delta = _site(config, "mlp.resid_delta")

    def forward(self, x: Tensor, ablated: AblatedInputs | None = None) -> Tensor:
        """Return the output of the MLP.

        Args:
            x: (B, T, D + P) normed residual stream and positions.
            ablated: as in `Block.forward`.

        Returns:
            (B, T, D) to add to the residual stream.
        """
        if all_constant(self, self.resid_delta):
            return self.resid_delta.constant_value(x)
        x = self.act_in(x)
        mask = None if ablated is None else ablated.neurons
        if isinstance(mask, SparseMask) and not self.post_act.acts:
            up, down = ((layer.weight, layer.bias) for layer in (self.up, self.down))
            output = sparse_mlp(x, up, down, mask, self.activation)
        else:
            neurons = self.post_act.activated(self.up(x), self.activation)  # (B, T, M)
            output = self.down(neurons if mask is None else neurons * dense_mask(mask, x))
        delta: Tensor = self.resid_delta(output)
        return delta


def make_norm(config: ModelConfig, width: int) -> RMSNorm | nn.LayerNorm:
    """Return the norm that a config asks for, of vectors of a width; with `none` the identity."""
    if config.norm == "rms":
        return RMSNorm(width, config.norm_eps)
    if config.norm == "none":
        return nn.Identity()  # type: ignore[return-value]  # who reads gains checks the config
    return nn.LayerNorm(width, config.norm_eps or 1e-5, bias=config.norm_bias)


def _site(config: ModelConfig, kind: SiteKind) -> Site:
    return Site(config.site_width(kind), config.site_k(kind))


def _read(x: Tensor, norm: nn.Module, pos: Tensor | None, pos_norm: nn.Module | None) -> Tensor:
    """Return the input of a sublayer: normed residual stream and normed positions, concatenated."""
    normed: Tensor = norm(x)
    if pos is None or pos_norm is None:
        return normed
    pos = pos_norm(pos)
    return torch.cat([normed, pos.expand(*normed.shape[:-1], -1)], -1)
