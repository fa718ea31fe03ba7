"""Patched runs and ACDC by their definitions: one edge at a time, a whole forward pass for each.

Plain loops over destinations, heads and sources, with nothing of `wirework.circuits.path_patching`.
"""

import copy
from collections.abc import Callable, Sequence, Set

import torch
import torch.nn.functional as F
from present import present
from torch import Tensor

from wirework.nn import Transformer
from wirework.nn.activation import activate
from wirework.nn.kernels.attention import causal_attention_reference
from wirework.nn.kernels.norm import RMSNorm
from wirework.nn.kernels.top_k import abs_top_k_reference

Edge = tuple[str, str]


def exact(transformer: Transformer) -> Transformer:
    """Return the model in float64, with the epsilon that its norms have in float32."""
    double = copy.deepcopy(transformer).double().requires_grad_(False)
    for part in double.modules():
        if isinstance(part, RMSNorm) and part.eps is None:
            part.eps = torch.finfo(torch.float32).eps
    return double


def all_edges(n_layer: int, n_head: int) -> list[Edge]:
    """Return every edge, destination by destination, in the order of the forward pass."""
    before, edges = ["embed"], []
    for layer in range(n_layer):
        heads = [f"{layer}.attn.{head}" for head in range(n_head)]
        edges += [(s, f"{head}.{kind}") for kind in "qkv" for head in heads for s in before]
        before = before + heads
        edges += [(source, f"{layer}.mlp") for source in before]
        before = [*before, f"{layer}.mlp"]
    return edges + [(source, "final_resid") for source in before]


def run(
    model: Transformer,
    tokens: Tensor,
    at: Tensor,
    removed: Set[Edge] = frozenset(),
    ablated: dict[str, Tensor] | None = None,
    last: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits (N, V) at the last tokens and every source's values."""
    config = model.config
    length = tokens.shape[1]
    start = model.embed(tokens)
    beside = None
    if config.positions == "added":
        start = start + present(model.positions).weight[:length]
    elif config.positions != "none":
        beside = present(model.positions).weight[:length].expand(len(tokens), -1, -1)
    values = {"embed": start}

    def seen(source: str, destination: str) -> Tensor:
        return present(ablated)[source] if (source, destination) in removed else values[source]

    def read(destination: str) -> Tensor:
        x = seen("embed", destination)
        for layer, block in enumerate(model.blocks):
            heads = [f"{layer}.attn.{head}" for head in range(config.n_head)]
            if heads[0] not in values or destination.startswith(f"{layer}.attn"):
                break
            added = sum((seen(head, destination) for head in heads), torch.zeros(()))
            if block.attn.out.bias is not None:
                added = added + block.attn.out.bias
            x = x + top(added, block.attn.resid_delta.k)
            if destination == f"{layer}.mlp":
                break
            x = x + seen(f"{layer}.mlp", destination)
        return x

    for layer, block in enumerate(model.blocks):
        parts = []
        for kind in range(3):
            of_heads = []
            for head in range(config.n_head):
                x = block.norm1(read(f"{layer}.attn.{head}.{'qkv'[kind]}"))
                if beside is not None:
                    x = torch.cat([x, present(block.pos_norm1)(beside)], -1)
                x = top(x, block.attn.act_in.k)
                first = kind * config.n_head * config.d_head + head * config.d_head
                rows = slice(first, first + config.d_head)
                bias = None if block.attn.qkv.bias is None else block.attn.qkv.bias[rows]
                of_heads.append(F.linear(x, block.attn.qkv.weight[rows], bias))
            joined = top(
                torch.cat(of_heads, -1), (block.attn.q, block.attn.k, block.attn.v)[kind].k
            )
            parts.append(joined.unflatten(-1, (config.n_head, -1)).transpose(1, 2))
        q, k, v = parts
        y = causal_attention_reference(
            q, k, v, block.attn.sink, block.attn.scale, block.attn.window
        )
        for head in range(config.n_head):
            columns = slice(head * config.d_head, (head + 1) * config.d_head)
            values[f"{layer}.attn.{head}"] = F.linear(y[:, head], block.attn.out.weight[:, columns])
        x = block.norm2(read(f"{layer}.mlp"))
        if beside is not None:
            x = torch.cat([x, present(block.pos_norm2)(beside)], -1)
        x = block.mlp.up(top(x, block.mlp.act_in.k))
        neurons = top(activate(x, block.mlp.activation), block.mlp.post_act.k)
        values[f"{layer}.mlp"] = top(block.mlp.down(neurons), block.mlp.resid_delta.k)
    each = torch.arange(len(tokens))
    logits = model.unembed(model.norm(read("final_resid")[each, at]))
    if model.logit_bias is not None:
        logits = logits + model.logit_bias
    if model.bigram is not None:
        logits = logits + model.bigram[tokens[each, at]]
    return logits, values


def top(x: Tensor, k: int | None) -> Tensor:
    return x if k is None else abs_top_k_reference(x, k)


def one_at_a_time(
    model: Transformer,
    tokens: Tensor,
    at: Tensor,
    ablated: dict[str, Tensor],
    metric: Callable[[Tensor], float],
    order: Sequence[Edge],
    tau: float,
) -> tuple[list[Edge], dict[Edge, float]]:
    """Return the edges that ACDC keeps, in order, and what each one's removal cost when tried."""
    removed: set[Edge] = set()
    kept, growth = [], {}
    current = metric(run(model, tokens, at)[0])
    for edge in order:
        new = metric(run(model, tokens, at, removed | {edge}, ablated)[0])
        growth[edge] = new - current
        if new - current < tau:
            removed.add(edge)
            current = new
        else:
            kept.append(edge)
    return kept, growth
