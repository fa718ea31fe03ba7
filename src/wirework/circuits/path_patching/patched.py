"""The patched run: a forward pass with some path edges removed.

A destination reads the embedding plus the sum of all earlier sources. A kept edge contributes its
source's value in this run, a removed edge the source's `ablated` value, which is the same in every
run. The bias of the attention output belongs to no source: every destination reads it in every run.
Positions added to the embedding are part of it; concatenated ones are constants beside the input.
If AbsTopK acts on the attention output, it acts on the sum of the layer's heads per destination.
Shapes: N prompts, T tokens, D d_model, S sources, M destinations of one sublayer, H heads, K
channels of a head. Source: Conmy et al. 2023, sec. 3.
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
from wirework.nn.kernels.attention import last_position_attention
from wirework.nn.kernels.linear import linear
from wirework.nn.kernels.norm import RMSNorm
from wirework.nn.transformer import Attention, Block


class Passed(NamedTuple):
    """Result of a patched run."""

    logits: Tensor
    """(N, V) at the last tokens."""
    values: list[Tensor]
    """(N, T, D) per source."""


@dataclass(frozen=True)
class Patched:
    """A model in float64, its prompts, and the ablated values that removed edges contribute."""

    transformer: Transformer
    contrast: Contrast
    graph: Graph
    ablation: PathAblation
    ablated: list[Tensor]
    """(N, T, D) per source."""

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
        refuse_curved_stream(transformer)
        exact = copied(transformer, torch.float64)
        graph = Graph(exact.config.n_layer, exact.config.n_head)
        none = [torch.zeros(1, dtype=torch.float64, device=contrast.last_positions.device)] * len(
            graph.sources
        )
        plain = cls(exact, contrast, graph, ablation, none)
        with torch.no_grad():
            corrupted = plain.run(tokens=contrast.corrupted).values
            if ablation == "zero":
                ablated = [torch.zeros_like(value) for value in corrupted]
            elif ablation == "mean":
                clean = plain.run().values
                ablated = plain._means(clean, corrupted)
            else:
                ablated = corrupted
        return cls(exact, contrast, graph, ablation, ablated)

    def run(
        self,
        gates: Tensor | None = None,
        *,
        tokens: Tensor | None = None,
        entry: Tensor | None = None,
        steps: list[Tensor] | None = None,
    ) -> Passed:
        """Run the model with some edges removed.

        Args:
            gates: (destinations, sources) float64, 1 for kept and 0 for removed edges; gradients
                flow to it. None keeps all.
            tokens: (N, T); None for the clean prompts.
            entry: (N, T, D), replaces the embedding of the tokens.
            steps: per source, what setting its gate to 0 subtracts; None for its value minus the
                ablated value.
        """
        tokens = self.contrast.clean if tokens is None else tokens
        start, beside = self.transformer.entry(tokens)
        values = [start if entry is None else entry]
        sums = _Sums(self, gates, values, steps)
        graph, heads = self.graph, self.graph.n_head
        for layer in range(graph.n_layer):
            block = self.block(layer)
            first = graph.head_input(layer, 0, 0)
            x = sums.read(first, len(QKV) * heads)  # (3H, N, T, D)
            read = block.attn.act_in(block.read_by_attention(x, beside))
            q, k, v = (
                stacked_heads(
                    site,
                    [head_part(block.attn, read[kind * heads + h], kind, h) for h in range(heads)],
                )
                for kind, site in enumerate(part_sites(block.attn))
            )
            y = attended(block.attn, q, k, v, range(heads))
            values += [head_output(block.attn, y[:, head], head) for head in range(heads)]
            x = sums.read(graph.mlp_input(layer))[0]
            values.append(block.mlp(block.read_by_mlp(x, beside)))
        rows = torch.arange(len(tokens), device=tokens.device)
        x = sums.read(graph.final)[0][rows, self.contrast.last_positions]
        logits = self.transformer.logits_of(self.transformer.norm(x), self.contrast.last)
        return Passed(logits, values)

    def to(self, dtype: torch.dtype) -> "Patched":
        """Return a copy in another dtype."""
        ablated = [value.to(dtype) for value in self.ablated]
        return replace(self, transformer=copied(self.transformer, dtype), ablated=ablated)

    def first_change(self) -> int:
        """Return the first position at which removing edges can change any prompt's activations."""
        if self.ablation != "corrupted":
            return 0
        differs = self.contrast.clean != self.contrast.corrupted
        places = torch.arange(differs.shape[1], device=differs.device)
        first = torch.where(differs, places, differs.shape[1]).amin(1)
        return int(torch.minimum(first, self.contrast.last_positions).min())

    def block(self, layer: int) -> Block:
        """Return a layer's block."""
        block = self.transformer.blocks[layer]
        assert isinstance(block, Block)
        return block

    def view(self, layer: int, heads: Tensor) -> Tensor:
        """Return the attention output for a sum of heads (..., D): add the bias, then AbsTopK."""
        attn = self.block(layer).attn
        output: Tensor = attn.resid_delta(heads if attn.out.bias is None else heads + attn.out.bias)
        return output

    def _means(self, clean: list[Tensor], corrupted: list[Tensor]) -> list[Tensor]:
        """Return the mean of each source over the prompts' tokens, as (N, T, D)."""
        last_positions, length = self.contrast.last_positions, self.contrast.clean.shape[1]
        inside = torch.arange(length, device=last_positions.device) <= last_positions[:, None]
        return [
            torch.cat([value[inside], other[inside]]).mean(0).expand_as(value).contiguous()
            for value, other in zip(clean, corrupted, strict=True)
        ]


class _Sums:
    """Inputs of the destinations of a run, as the values of its sources are computed."""

    def __init__(
        self,
        patched: Patched,
        gates: Tensor | None,
        values: list[Tensor],
        steps: list[Tensor] | None,
    ) -> None:
        self.patched = patched
        self.gates = gates
        self.values = values
        self.steps = steps

    def read(self, first: int, count: int = 1) -> Tensor:
        """Return (M, N, T, D), inputs of M consecutive destinations of one sublayer."""
        graph = self.patched.graph
        rows = None if self.gates is None else self.gates[first : first + count]
        n_before = graph.n_before(first)
        x = self._mixed(rows, 0, 1)
        for layer in range(graph.n_layer):
            start, mlp = graph.head(layer, 0), graph.mlp(layer)
            if start < n_before:
                x = x + self.patched.view(layer, self._mixed(rows, start, mlp))
            if mlp < n_before:
                x = x + self._mixed(rows, mlp, mlp + 1)
        return x.expand(count, *x.shape[1:])

    def _mixed(self, rows: Tensor | None, start: int, stop: int) -> Tensor:
        """Return the sum of some sources' contributions, (M or 1, N, T, D)."""
        whole = torch.stack(self.values[start:stop])
        total = whole.sum(0, keepdim=True)
        if rows is None:
            return total
        if self.steps is None:
            away = whole - torch.stack(self.patched.ablated[start:stop])
        else:
            away = torch.stack(self.steps[start:stop])
        return total + torch.einsum("ms,sntd->mntd", rows[:, start:stop] - 1, away)


def head_part(attn: Attention, read: Tensor, kind: int, head: int) -> Tensor:
    """Return the queries, keys or values (kind 0, 1, 2) of a head, (..., K), from its input."""
    width = attn.d_head
    start = kind * attn.y.width + head * width
    bias = None if attn.qkv.bias is None else attn.qkv.bias[start : start + width]
    return linear(read, attn.qkv.weight[start : start + width], bias)


def head_output(attn: Attention, y: Tensor, head: int) -> Tensor:
    """Return a head's write to the residual stream, (..., D), from its output (..., K)."""
    width = attn.d_head
    return linear(y, attn.out.weight[:, head * width : (head + 1) * width])


def part_sites(attn: Attention) -> tuple[Site, Site, Site]:
    """Return the sites of the queries, keys and values."""
    return attn.q, attn.k, attn.v


def attended(
    attn: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: Iterable[int],
    query_positions: Tensor | None = None,
) -> Tensor:
    """Return the outputs of some heads, (B, G, T, K), from their queries, keys and values.

    `query_positions` gives the position of the query if there is only one per sequence.
    """
    sink = None if attn.sink is None else attn.sink[list(heads)]
    if query_positions is not None and q.shape[-2] < k.shape[-2]:
        return last_position_attention(
            q, k, v, query_positions, sink=sink, scale=attn.scale, window=attn.window
        )
    return causal_attention(q, k, v, sink=sink, scale=attn.scale, window=attn.window)


def stacked_heads(site: Site, heads: list[Tensor]) -> Tensor:
    """Stack heads (..., T, K) to (..., G, T, K), after AbsTopK over all if the site has it."""
    joined = torch.cat(heads, -1)
    joined = joined if site.k is None else site(joined)
    return joined.view(*joined.shape[:-1], len(heads), heads[0].shape[-1]).transpose(-3, -2)


def refuse_curved_stream(transformer: Transformer) -> None:
    """Refuse a model whose residual stream is not a sum.

    Raises:
        InputError: it has a non-linearity or AbsTopK on the residual stream.
    """
    config = transformer.config
    acting = [kind for kind in ("resid_mid", "resid_out") if config.site_k(kind) is not None]
    if config.residual_activation != "identity":
        acting = [config.residual_activation]
    if acting:
        raise InputError(
            f"no path edges in this model: {acting[0]} acts on its residual stream, which is then "
            "not a sum of what heads and MLPs write"
        )


def copied(transformer: Transformer, dtype: torch.dtype) -> Transformer:
    """Return a copy in a dtype, without gradients, with the epsilon of the original's norms."""
    copy_ = copy.deepcopy(transformer).to(dtype).requires_grad_(False).eval()
    for module, twin in zip(transformer.modules(), copy_.modules(), strict=True):
        if isinstance(module, RMSNorm) and isinstance(twin, RMSNorm) and module.eps is None:
            twin.eps = torch.finfo(module.weight.dtype).eps
    return copy_
