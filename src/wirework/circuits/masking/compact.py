"""A circuit as a small model: the same outputs as the masked model, for the cost of its nodes.

With a fixed mask and mean ablation, removed nodes are constants. Constants are folded into biases
once, and of each matrix only the columns of kept nodes remain. All rows remain where AbsTopK ranks
them, because removed nodes compete with kept ones before they are ablated. Attention is computed
for heads with a kept node only. Of the unembedding, only the rows of the two answers are read.

`Masks.logit_diffs` is the reference; results differ in rounding, because sums have another order.

Shapes: B sequences, T tokens, D d_model, H heads, K d_head, N nodes of a site, M of them kept.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wirework.circuit_format import EMBED
from wirework.circuits.masking.removed_entries import RemovedEntries
from wirework.nn import Transformer
from wirework.nn.activation import activate
from wirework.nn.block import Block
from wirework.nn.kernels.attention import causal_attention, last_position_attention
from wirework.nn.kernels.live_weight import LiveWeight
from wirework.nn.kernels.top_members import top_members
from wirework.nn.positions import match_positions, select_positions
from wirework.nn.sites import Site, is_hooked
from wirework.tasks import TokenizedPairs

Weights = Callable[[str], tuple[Tensor, Tensor | None]]
"""Maps the name of a linear layer to its weight and bias, without the removed edges."""

KeptEdits = Mapping[str, Callable[[Tensor], Tensor]]
"""Site to a function of its kept nodes' activations, (B, T, M) to (B, T, M)."""

NO_EDITS: KeptEdits = {}


def can_be_compact(transformer: Transformer) -> bool:
    """Return whether a model runs plainly on the CPU, so that a small model has its outputs."""
    weight = transformer.embed.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not any(_is_changed(part) for part in transformer.modules())
    )


def answer_logit_diffs(model: Transformer, state: Tensor, batch: TokenizedPairs) -> Tensor:
    """Return the logit of the right answer minus that of the wrong one, (..., 2P).

    Args:
        model: the transformer, of whose unembedding only the rows of the answers are read.
        state: (..., 2P, D) final normalised states at the last tokens.
        batch: P tokenised pairs.
    """
    answers = batch.answers
    logits = (model.unembed.weight[answers] @ state.unsqueeze(-1)).squeeze(-1)
    if model.logit_bias is not None:
        logits = logits + model.logit_bias[answers]
    if model.bigram is not None:
        tokens = batch.tokens[torch.arange(len(answers)), batch.last_positions]
        logits = logits + model.bigram[tokens[:, None], answers]
    right, wrong = logits.unbind(-1)
    return right - wrong


def _is_changed(part: nn.Module) -> bool:
    live: LiveWeight | None = getattr(part, "live", None)
    edits = part.edits if isinstance(part, Site) else ()
    return bool(edits) or is_hooked(part) or live is not None


class CompactCircuit:
    """A transformer under one mask.

    Args:
        transformer: the model; its weights must not change while the circuit is used.
        kept: site to the channels (M,) of its kept nodes, int64 ascending, for all node sites.
        means: site to (N,), the values of removed nodes.
        weights: weights and biases of the linear layers; None for those of the model.
        removed_entries: removed embedding entries; None if there are none.
    """

    def __init__(
        self,
        transformer: Transformer,
        kept: Mapping[str, Tensor],
        means: Mapping[str, Tensor],
        weights: Weights | None = None,
        removed_entries: RemovedEntries | None = None,
    ) -> None:
        self._transformer = transformer
        self._removed_entries = removed_entries
        self._parts = _Parts(transformer, kept, means, weights or _plain_weights(transformer))
        self._layers: dict[int, tuple[_Attention | None, _Mlp | None]] = {}

    def logit_diffs(
        self,
        batch: TokenizedPairs,
        start_from: tuple[int, Tensor] | None = None,
        block_inputs: list[Tensor] | None = None,
        edits: KeptEdits = NO_EDITS,
    ) -> Tensor:
        """Return the logit difference of each prompt; arguments as in `Masks.logit_diffs`.

        Args:
            batch: P tokenised pairs.
            start_from: a layer and the residual stream before it, (2P, T, D).
            block_inputs: list to which the residual stream before each block is appended.
            edits: changes of kept nodes.

        Returns:
            (2P,).
        """
        model, last = self._transformer, batch.last_positions
        model.check_tokens(batch.tokens)
        if start_from is None:
            (x, pos), first = self._entry(batch.tokens), 0
        else:
            (first, x), pos = start_from, model.concatenated_positions(batch.tokens)
        narrow_from = self._last_mixing_layer()
        for layer, block in enumerate(model.blocks[first:], first):
            if block_inputs is not None:
                block_inputs.append(x)
            x = self._run(layer, block, x, pos, last if layer >= narrow_from else None, edits)
        state = model.norm(select_positions(x, last)).squeeze(1)
        return answer_logit_diffs(model, state, batch)

    def _entry(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the input of the first block and its positions, as `Transformer.entry`."""
        x, pos = self._transformer.entry(tokens)
        if (removed := self._removed_entries) is not None:
            entries = self._transformer.embed.weight[tokens[..., None], removed.channels]
            change = removed.change(tokens, entries, self._parts.means[EMBED])
            x = x.index_add(-1, removed.channels, change)
        return x, pos

    def _last_mixing_layer(self) -> int:
        """Return the last layer whose attention is not constant; only it needs all tokens."""
        kept, n_layer = self._parts.kept, self._transformer.config.n_layer
        mixing = (i for i in range(n_layer) if len(kept[f"{i}.attn.resid_delta"]))
        return max(mixing, default=0)

    def _run(
        self,
        layer: int,
        block: Block,
        x: Tensor,
        pos: Tensor | None,
        last: Tensor | None,
        edits: KeptEdits,
    ) -> Tensor:
        """Return the residual stream after a block, as `Block.forward` does."""
        attention, mlp = self._folded(layer)
        pos = match_positions(x, pos, last)
        delta = None
        if attention is not None:
            delta = attention(lambda: block.read_by_attention(x, pos), x, last, edits)
        if last is not None:
            x = select_positions(x, last)
            pos = match_positions(x, pos, last)
        x = self._added(f"{layer}.attn.resid_delta", x, delta)
        x = block.resid_mid(x.relu() if block.relu_residual else x)
        delta = None if mlp is None else mlp(lambda: block.read_by_mlp(x, pos), x, edits)
        x = self._added(f"{layer}.mlp.resid_delta", x, delta)
        out: Tensor = block.resid_out(x.relu() if block.relu_residual else x)
        return out

    def _added(self, site: str, x: Tensor, kept_values: Tensor | None) -> Tensor:
        """Add a sublayer's output to the residual stream: constants, and the kept channels."""
        x = x + self._parts.constant(site)
        return x if kept_values is None else x.index_add(-1, self._parts.kept[site], kept_values)

    def _folded(self, layer: int) -> "tuple[_Attention | None, _Mlp | None]":
        """Return the folded sublayers of a layer; None for one with a constant output."""
        if layer not in self._layers:
            kept = self._parts.kept
            self._layers[layer] = (
                _Attention(self._parts, layer) if len(kept[f"{layer}.attn.resid_delta"]) else None,
                _Mlp(self._parts, layer) if len(kept[f"{layer}.mlp.resid_delta"]) else None,
            )
        return self._layers[layer]


class _Parts(NamedTuple):
    """A model and a mask over its nodes."""

    transformer: Transformer
    kept: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    weights: Weights

    def constant(self, site: str) -> Tensor:
        """Return (N,): the values of a site's removed nodes, 0 at kept nodes."""
        return self.means[site].index_fill(0, self.kept[site], 0)

    def product(self, module: str, source: str, target: str, first: int = 0) -> "_Product":
        """Return the product from the kept nodes of one site to another site, before its mask.

        Args:
            module: name of the linear layer.
            source: site that it reads.
            target: site that it writes.
            first: its first row that writes to the site.
        """
        weight, bias = self.weights(module)
        width = self.means[target].shape[0]
        weight = weight[first : first + width]
        offset = weight @ self.constant(source)
        if bias is not None:
            offset = offset + bias[first : first + width]
        return self.folded(weight[:, self.kept[source]], offset, target)

    def folded(self, weight: Tensor, offset: Tensor, target: str) -> "_Product":
        """Return a product with the rows that a site needs."""
        layer, _, name = target.partition(".")
        site: Site = self.transformer.blocks[int(layer)].get_submodule(name)  # type: ignore[assignment]
        chosen = self.kept[target]
        if site.k is None:
            return _Product(weight[chosen], offset[chosen], _Chosen(None, chosen))
        return _Product(weight, offset, _Chosen(site.k, chosen))


class _Chosen(NamedTuple):
    """The kept nodes of a site, given its input."""

    k: int | None
    """Entries that AbsTopK keeps; None if there is no AbsTopK, then the input has only the kept
    nodes."""
    channels: Tensor
    """(M,)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return (..., M) of (..., N)."""
        return x if self.k is None else top_members(x, self.k, self.channels)


class _Product(NamedTuple):
    """Product of kept nodes with the needed rows of a matrix, then the kept nodes of its site."""

    weight: Tensor
    """(rows, M)."""
    offset: Tensor
    """(rows,) the bias, and what constants add."""
    chosen: _Chosen

    def __call__(self, x: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the kept nodes of the written site for those of the read one."""
        out = F.linear(x, self.weight, self.offset)
        return self.chosen(out if activation is None else activation(out))


class _Input(NamedTuple):
    """The site in front of a sublayer's first matrix."""

    site: str
    k: int | None
    channels: Tensor

    @classmethod
    def of(cls, parts: _Parts, site: str) -> "_Input":
        layer, _, name = site.partition(".")
        part: Site = parts.transformer.blocks[int(layer)].get_submodule(name)  # type: ignore[assignment]
        return cls(site, part.k, parts.kept[site])

    def __call__(self, read: Callable[[], Tensor], like: Tensor, edits: KeptEdits) -> Tensor:
        """Return the kept nodes, (B, T, M), of what `read` returns; it is called if there are any.

        Args:
            read: computes the input of the site, (B, T, N).
            like: (B, T, D), for shape and dtype.
            edits: changes of kept nodes.
        """
        if not len(self.channels):
            return like.new_empty(*like.shape[:-1], 0)
        x = read()
        members = x[..., self.channels] if self.k is None else top_members(x, self.k, self.channels)
        return _edited(self.site, members, edits)


class _Attention:
    """The attention of a layer whose output has kept nodes."""

    def __init__(self, parts: _Parts, layer: int) -> None:
        name, module = f"{layer}.attn", f"blocks.{layer}.attn"
        attention = parts.transformer.blocks[layer].attn
        self._name, self._d_head = name, attention.d_head
        self._scale, self._window = attention.scale, attention.window
        self._input = _Input.of(parts, f"{name}.act_in")
        inner = len(parts.means[f"{name}.q"])
        active = torch.zeros(inner // self._d_head, dtype=torch.bool)
        for part in "qkv":
            active[parts.kept[f"{name}.{part}"] // self._d_head] = True
        channels = active.repeat_interleave(self._d_head).nonzero().flatten()
        self._heads = {
            part: _HeadChannels(
                parts.product(f"{module}.qkv", f"{name}.act_in", f"{name}.{part}", i * inner),
                f"{name}.{part}",
                parts.constant(f"{name}.{part}")[channels],
                torch.searchsorted(channels, parts.kept[f"{name}.{part}"]),
            )
            for i, part in enumerate("qkv")
        }
        self._sink = None if attention.sink is None else attention.sink[active]
        weight, bias = parts.weights(f"{module}.out")
        offset = weight.new_zeros(len(weight)) if bias is None else bias
        self._constant_heads = None
        if not active.all():
            q, k, v = (parts.means[f"{name}.{part}"].view(-1, self._d_head) for part in "qkv")
            values = (weight.view(len(weight), -1, self._d_head) * v).sum(-1)[:, ~active]  # (D, H)
            if attention.sink is None:
                offset = offset + values.sum(1)
            else:
                scores = self._scale * (q * k).sum(-1) - attention.sink
                self._constant_heads = values, scores[~active]
        self._out = parts.folded(weight[:, channels], offset, f"{name}.resid_delta")

    def __call__(
        self, read: Callable[[], Tensor], x: Tensor, last: Tensor | None, edits: KeptEdits
    ) -> Tensor:
        """Return the kept nodes of the output, (B, T, M), or (B, 1, M) with `last`."""
        entered = self._input(read, x, edits)
        queries = entered if last is None else select_positions(entered, last)
        q, k, v = (
            self._heads[part](inputs, edits)
            .view(*inputs.shape[:-1], -1, self._d_head)
            .transpose(1, 2)
            for part, inputs in (("q", queries), ("k", entered), ("v", entered))
        )
        if not q.shape[1]:
            y = queries.new_empty(*queries.shape[:-1], 0)
        elif last is None:
            y = causal_attention(q, k, v, sink=self._sink, scale=self._scale, window=self._window)
        else:
            y = last_position_attention(
                q, k, v, last, sink=self._sink, scale=self._scale, window=self._window
            )
        if q.shape[1]:
            y = y.transpose(1, 2).flatten(2)
        out = F.linear(y, self._out.weight, self._out.offset)
        if self._constant_heads is not None:
            out = out + self._of_constant_heads(x.shape[1], last)
        return _edited(f"{self._name}.resid_delta", self._out.chosen(out), edits)

    def _of_constant_heads(self, n_tokens: int, last: Tensor | None) -> Tensor:
        """Return what heads without kept nodes add to the output, (T, rows) or (B, 1, rows).

        All their scores are equal, so only the sink's share depends on the position.
        """
        assert self._constant_heads is not None
        values, scores = self._constant_heads
        n_visible = torch.arange(1, n_tokens + 1)
        if self._window is not None:
            n_visible = n_visible.clamp(max=self._window)
        shares = torch.sigmoid(n_visible.to(scores.dtype).log()[:, None] + scores)  # (T, H)
        table = shares @ values.T
        if self._out.chosen.k is None:
            table = table[:, self._out.chosen.channels]
        return table if last is None else table[last].unsqueeze(1)


class _HeadChannels(NamedTuple):
    """Queries, keys or values of the heads with kept nodes."""

    product: _Product
    site: str
    constant: Tensor
    """(heads x K,) removed nodes, 0 at kept ones."""
    positions: Tensor
    """(M,) indices of the kept nodes in `constant`."""

    def __call__(self, x: Tensor, edits: KeptEdits) -> Tensor:
        """Return (B, T, heads x K) for the kept nodes of the input."""
        channels = self.constant.expand(*x.shape[:-1], -1).contiguous()
        if not len(self.positions):
            return channels
        values = _edited(self.site, self.product(x), edits)
        return channels.index_copy(-1, self.positions, values)


class _Mlp:
    """The MLP of a layer whose output has kept nodes."""

    def __init__(self, parts: _Parts, layer: int) -> None:
        name, module = f"{layer}.mlp", f"blocks.{layer}.mlp"
        kind = parts.transformer.blocks[layer].mlp.activation
        self._name = name
        self._activation = lambda x: activate(x, kind)
        self._input = _Input.of(parts, f"{name}.act_in")
        self._up = parts.product(f"{module}.up", f"{name}.act_in", f"{name}.post_act")
        self._down = parts.product(f"{module}.down", f"{name}.post_act", f"{name}.resid_delta")

    def __call__(self, read: Callable[[], Tensor], x: Tensor, edits: KeptEdits) -> Tensor:
        """Return the kept nodes of the output, (B, T, M)."""
        if len(self._up.chosen.channels):
            entered = self._input(read, x, edits)
            neurons = _edited(f"{self._name}.post_act", self._up(entered, self._activation), edits)
        else:
            neurons = x.new_empty(*x.shape[:-1], 0)
        return _edited(f"{self._name}.resid_delta", self._down(neurons), edits)


def _edited(site: str, values: Tensor, edits: KeptEdits) -> Tensor:
    return edits[site](values) if site in edits else values


def _plain_weights(transformer: Transformer) -> Weights:
    def weights(name: str) -> tuple[Tensor, Tensor | None]:
        layer = transformer.get_submodule(name)
        return layer.weight, layer.bias  # type: ignore[return-value]

    return weights
