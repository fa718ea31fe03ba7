"""The patched run: a forward pass with some path edges removed.

Each destination reads its own sum of all earlier sources:

- A kept edge contributes the value of its source in this run.
- A removed edge contributes the `ablated` value of its source, which is the same in every run.
- The bias of the attention output belongs to no source: every destination reads it in every run.
- Positions added to the embedding are part of the source `embed`; concatenated positions are
  constants that are appended to the sum.
- AbsTopK on the attention output acts on the sum of what one destination reads from the heads of
  one layer.

Shapes: N prompts, T tokens, D d_model, S sources, M destinations of one sublayer, H heads, G heads
computed together, K channels of a head, V vocabulary. Source: Conmy et al. 2023, sec. 3.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from wirework.circuits.path_patching.contrast import Contrast
from wirework.circuits.path_patching.graph import QKV, Graph
from wirework.config import PathAblation
from wirework.errors import InputError
from wirework.nn import Site, Transformer, causal_attention
from wirework.nn.block import Attention, Block
from wirework.nn.kernels.attention import last_position_attention
from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.norm import RMSNorm


class PatchedRun(NamedTuple):
    """Result of a patched run."""

    logits: Tensor
    """(N, V) at the last tokens."""
    values: list[Tensor]
    """By source: what it writes to the residual stream, (N, T, D)."""


@dataclass(frozen=True)
class Patched:
    """A model in float64, its prompts, and the ablated values that removed edges contribute."""

    transformer: Transformer
    contrast: Contrast
    """The clean and corrupted prompts."""
    graph: Graph
    ablation: PathAblation
    """How the ablated values were chosen."""
    ablated: list[Tensor]
    """By source: what its removed edges contribute, (N, T, D)."""

    @classmethod
    def of(
        cls, transformer: Transformer, contrast: Contrast, ablation: PathAblation = "corrupted"
    ) -> "Patched":
        """Copy a model and compute the ablated values.

        Args:
            transformer: the model; not changed.
            contrast: the prompts.
            ablation: `corrupted`: a removed edge contributes its source's value on the corrupted
                prompt, token by token; `zero`: zero; `mean`: the mean of its source over all
                tokens of all clean and corrupted prompts, the same at every token.

        Raises:
            InputError: the residual stream of this model is not a sum.
        """
        refuse_nonlinear_residual(transformer)
        exact = copied(transformer, torch.float64)
        graph = Graph(exact.config.n_layer, exact.config.n_head)
        nothing_removed = cls(exact, contrast, graph, ablation, [])
        with torch.no_grad():
            corrupted = nothing_removed.run(tokens=contrast.corrupted).values
            if ablation == "zero":
                ablated = [torch.zeros_like(value) for value in corrupted]
            elif ablation == "mean":
                clean = nothing_removed.run().values
                ablated = nothing_removed._means(clean, corrupted)
            else:
                ablated = corrupted
        return cls(exact, contrast, graph, ablation, ablated)

    def run(
        self,
        gates: Tensor | None = None,
        *,
        tokens: Tensor | None = None,
        entry: Tensor | None = None,
        deviations: list[Tensor] | None = None,
    ) -> PatchedRun:
        """Run the model with some edges removed.

        Args:
            gates: (destinations, sources) float64, 1 for kept and 0 for removed edges; gradients
                flow to it. None keeps all edges.
            tokens: (N, T) int64; None for the clean prompts.
            entry: (N, T, D), replaces the embedding of the tokens.
            deviations: by source, what removing one of its edges subtracts, (N, T, D); None for its
                value in this run minus its ablated value.

        Returns:
            The logits at the last tokens, and the value of every source.
        """
        tokens = self.contrast.clean if tokens is None else tokens
        embedding, pos = self.transformer.entry(tokens)
        values = [embedding if entry is None else entry]
        inputs = _DestinationInputs(self, gates, values, deviations)
        graph, heads = self.graph, self.graph.n_head
        for layer in range(graph.n_layer):
            block = self.block(layer)
            first = graph.head_input(layer, 0, 0)
            x = inputs.read(first, len(QKV) * heads)  # (3H, N, T, D)
            read = block.attn.act_in(block.read_by_attention(x, pos))
            q, k, v = (
                stacked_heads(
                    site,
                    [head_part(block.attn, read[kind * heads + h], kind, h) for h in range(heads)],
                )
                for kind, site in enumerate(part_sites(block.attn))
            )
            y = attention_of_heads(block.attn, q, k, v, range(heads))
            values += [head_output(block.attn, y[:, head], head) for head in range(heads)]
            x = inputs.read(graph.mlp_input(layer))[0]
            values.append(block.mlp(block.read_by_mlp(x, pos)))
        rows = torch.arange(len(tokens), device=tokens.device)
        x = inputs.read(graph.final)[0][rows, self.contrast.last_positions]
        logits = self.transformer.logits_of(self.transformer.norm(x), self.contrast.last)
        return PatchedRun(logits, values)

    def to(self, dtype: torch.dtype) -> "Patched":
        """Return a copy whose weights and ablated values have another dtype."""
        ablated = [value.to(dtype) for value in self.ablated]
        return replace(self, transformer=copied(self.transformer, dtype), ablated=ablated)

    def first_change(self) -> int:
        """Return the first position at which removing edges can change any prompt's activations."""
        if self.ablation != "corrupted":
            return 0
        differs = self.contrast.clean != self.contrast.corrupted
        positions = torch.arange(differs.shape[1], device=differs.device)
        first = torch.where(differs, positions, differs.shape[1]).amin(1)
        return int(torch.minimum(first, self.contrast.last_positions).min())

    def block(self, layer: int) -> Block:
        """Return a layer's block."""
        block = self.transformer.blocks[layer]
        assert isinstance(block, Block)
        return block

    def attention_output(self, layer: int, heads_sum: Tensor) -> Tensor:
        """Return what a layer's attention adds to the residual stream: add the bias, then AbsTopK.

        Args:
            layer: number of the layer.
            heads_sum: (..., D), sum of the values of its heads.
        """
        attn = self.block(layer).attn
        biased = heads_sum if attn.out.bias is None else heads_sum + attn.out.bias
        output: Tensor = attn.resid_delta(biased)
        return output

    def _means(self, clean: list[Tensor], corrupted: list[Tensor]) -> list[Tensor]:
        """Return the mean of each source over the tokens of all prompts, expanded to (N, T, D)."""
        last_positions, length = self.contrast.last_positions, self.contrast.clean.shape[1]
        is_token = torch.arange(length, device=last_positions.device) <= last_positions[:, None]
        return [
            torch.cat([of_clean[is_token], of_corrupted[is_token]])
            .mean(0)
            .expand_as(of_clean)
            .contiguous()
            for of_clean, of_corrupted in zip(clean, corrupted, strict=True)
        ]


class _DestinationInputs:
    """Sums up the inputs of destinations while the run appends the values of its sources."""

    def __init__(
        self,
        patched: Patched,
        gates: Tensor | None,
        values: list[Tensor],
        deviations: list[Tensor] | None,
    ) -> None:
        self.patched = patched
        self.gates = gates
        self.values = values
        self.deviations = deviations

    def read(self, first: int, count: int = 1) -> Tensor:
        """Return (M, N, T, D), the inputs of consecutive destinations of one sublayer.

        Args:
            first: number of the first destination.
            count: M.
        """
        graph = self.patched.graph
        gates = None if self.gates is None else self.gates[first : first + count]
        n_before = graph.n_before(first)
        x = self._contribution(gates, 0, 1)
        for layer in range(graph.n_layer):
            first_head, mlp = graph.head(layer, 0), graph.mlp(layer)
            if first_head < n_before:
                heads_sum = self._contribution(gates, first_head, mlp)
                x = x + self.patched.attention_output(layer, heads_sum)
            if mlp < n_before:
                x = x + self._contribution(gates, mlp, mlp + 1)
        return x.expand(count, *x.shape[1:])

    def _contribution(self, gates: Tensor | None, start: int, stop: int) -> Tensor:
        """Return what sources start .. stop - 1 contribute together, (M or 1, N, T, D)."""
        values = torch.stack(self.values[start:stop])
        total = values.sum(0, keepdim=True)
        if gates is None:
            return total
        if self.deviations is None:
            deviations = values - torch.stack(self.patched.ablated[start:stop])
        else:
            deviations = torch.stack(self.deviations[start:stop])
        return total + torch.einsum("ms,sntd->mntd", gates[:, start:stop] - 1, deviations)


def head_part(attn: Attention, read: Tensor, kind: int, head: int) -> Tensor:
    """Return the queries, keys or values of one head, (..., K), before AbsTopK.

    Args:
        attn: the attention of the head's layer.
        read: (..., D), the normed input of the head.
        kind: 0 for queries, 1 for keys, 2 for values.
        head: number of the head.
    """
    width = attn.d_head
    start = kind * attn.y.width + head * width
    bias = None if attn.qkv.bias is None else attn.qkv.bias[start : start + width]
    return linear(read, attn.qkv.weight[start : start + width], bias)


def head_output(attn: Attention, y: Tensor, head: int) -> Tensor:
    """Return what a head writes to the residual stream, (..., D), from its output (..., K)."""
    width = attn.d_head
    return linear(y, attn.out.weight[:, head * width : (head + 1) * width])


def part_sites(attn: Attention) -> tuple[Site, Site, Site]:
    """Return the sites of the queries, keys and values."""
    return attn.q, attn.k, attn.v


def attention_of_heads(
    attn: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: Iterable[int],
    query_positions: Tensor | None = None,
) -> Tensor:
    """Return the outputs of some heads, (B, G, queries, K).

    Args:
        attn: the attention of the heads' layer.
        q: (B, G, queries, K), one query per token or a single one per sequence.
        k: (B, G, T, K).
        v: (B, G, T, K).
        heads: numbers of the G heads.
        query_positions: (B,), position of the query if there is a single one per sequence.
    """
    sink = None if attn.sink is None else attn.sink[list(heads)]
    if query_positions is not None and q.shape[-2] < k.shape[-2]:
        return last_position_attention(
            q, k, v, query_positions, sink=sink, scale=attn.scale, window=attn.window
        )
    return causal_attention(q, k, v, sink=sink, scale=attn.scale, window=attn.window)


def stacked_heads(site: Site, heads: list[Tensor]) -> Tensor:
    """Stack G heads (..., T, K) to (..., G, T, K), after AbsTopK over all of them.

    Args:
        site: the site of the queries, keys or values; without AbsTopK the heads stay unchanged.
        heads: queries, keys or values of each head.
    """
    concatenated = torch.cat(heads, -1)
    concatenated = concatenated if site.k is None else site(concatenated)
    shape = *concatenated.shape[:-1], len(heads), heads[0].shape[-1]
    return concatenated.view(shape).transpose(-3, -2)


def refuse_nonlinear_residual(transformer: Transformer) -> None:
    """Refuse a model whose residual stream is not the sum of what its components write.

    Raises:
        InputError: it has a non-linearity or AbsTopK on the residual stream.
    """
    config = transformer.config
    nonlinear = [kind for kind in ("resid_mid", "resid_out") if config.site_k(kind) is not None]
    if config.residual_activation != "identity":
        nonlinear = [config.residual_activation]
    if nonlinear:
        raise InputError(
            f"no path edges in this model: {nonlinear[0]} acts on its residual stream, which is "
            "therefore not the sum of what heads and MLPs write"
        )


def copied(transformer: Transformer, dtype: torch.dtype) -> Transformer:
    """Return a copy in another dtype, without gradients, whose norms have the same epsilon.

    A norm without a set epsilon takes that of its dtype; the copy would compute something else.
    """
    copied_model = copy.deepcopy(transformer).to(dtype).requires_grad_(False).eval()
    for original, norm in zip(transformer.modules(), copied_model.modules(), strict=True):
        if isinstance(original, RMSNorm) and isinstance(norm, RMSNorm) and original.eps is None:
            norm.eps = torch.finfo(original.weight.dtype).eps
    return copied_model
