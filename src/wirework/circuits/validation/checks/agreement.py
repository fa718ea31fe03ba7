"""Agreement of circuit and model: full next-token distributions and attention patterns.

Shapes: P pairs (two prompts each), B prompts of one pass, H heads, T tokens, K channels of a head.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import MaskedCircuit, finite, passes
from wirework.nn import Transformer
from wirework.nn.block import Attention
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs


@dataclass(frozen=True, repr=False)
class HeadAgreement(Report):
    """Distance between the attention patterns of a head in the circuit and in the model."""

    layer: int
    head: int
    distance: float
    """Total variation distance of the two distributions over keys, mean over prompts; 0 to 1."""


@dataclass(frozen=True, repr=False)
class Agreement(Report):
    """Comparison of model and circuit at the last tokens of the prompts."""

    kl: float
    """KL(model || circuit) over the vocabulary in nats, mean over prompts."""
    top1: float
    """Share of prompts with the same most likely token."""
    attention: float | None
    """Mean distance over `heads`; None without heads."""
    heads: tuple[HeadAgreement, ...]
    """Heads with a kept q, k or v channel."""


@torch.no_grad()
def agreement(masked_circuit: MaskedCircuit, batch: TokenizedPairs) -> Agreement:
    """Compare the circuit with the model at each prompt's last token.

    Raises:
        InputError: a value is not finite.
    """
    heads = _heads(masked_circuit)
    layers = sorted({layer for layer, _ in heads})
    kl = n_same = 0.0
    head_distances: dict[int, Tensor] = {}
    for _, part in passes(batch):
        model_logits, model_patterns = _run(masked_circuit.transformer, part, layers)
        with masked_circuit.on():
            circuit_logits, patterns = _run(masked_circuit.transformer, part, layers)
        p, q = model_logits.double().log_softmax(-1), circuit_logits.double().log_softmax(-1)
        kl += float((p.exp() * (p - q)).sum())
        n_same += int((model_logits.argmax(-1) == circuit_logits.argmax(-1)).sum())
        for layer in layers:
            distance = (model_patterns[layer] - patterns[layer]).abs().sum(-1) / 2  # (B, H)
            head_distances[layer] = head_distances.get(layer, 0) + distance.sum(0)
    count = len(batch.last_positions)
    head_agreements = tuple(
        HeadAgreement(
            layer, head, finite(float(head_distances[layer][head]) / count, "an attention distance")
        )
        for layer, head in heads
    )
    return Agreement(
        kl=max(finite(kl, "the KL divergence") / count, 0.0),
        top1=n_same / count,
        attention=sum(head.distance for head in head_agreements) / len(head_agreements)
        if head_agreements
        else None,
        heads=head_agreements,
    )


def last_pattern(
    q: Tensor,
    k: Tensor,
    query_positions: Tensor,
    *,
    sink: Tensor | None,
    scale: float,
    window: int | None,
) -> Tensor:
    """Return the attention pattern of one query per sequence.

    Args:
        q, k: (B, H, T, K).
        query_positions: (B,) position of the query in each sequence.
        sink: (H,) logits of an attention sink; None without one.
        scale: factor of the scores.
        window: tokens a query attends to, its own included; None for all.

    Returns:
        (B, H, T) probabilities, 0 at masked tokens; with a sink (B, H, T + 1), the sink last.
        At least float32.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    query = q[torch.arange(len(query_positions), device=q.device), :, query_positions].to(
        wide
    )  # (B, H, K)
    scores = torch.einsum("bhk,bhtk->bht", query, k.to(wide)) * scale
    positions = torch.arange(k.shape[2], device=query_positions.device)
    distance = query_positions[:, None] - positions  # (B, T)
    is_visible = (distance >= 0) & (distance < (k.shape[2] if window is None else window))
    scores = scores.masked_fill(~is_visible[:, None], -torch.inf)
    if sink is not None:
        column = sink.to(wide)[None, :, None].expand(len(query_positions), -1, 1)
        scores = torch.cat([scores, column], -1)
    return scores.softmax(-1)


def _run(
    transformer: Transformer, part: TokenizedPairs, layers: Iterable[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return logits (B, V) and each layer's attention patterns at the last tokens."""
    sites = [f"{layer}.attn.{kind}" for layer in layers for kind in "qk"]
    with transformer.recorded(sites) as values:
        logits = transformer(part.tokens, part.last_positions)
    patterns = {}
    for layer in layers:
        attention = cast(Attention, transformer.get_submodule(f"blocks.{layer}.attn"))
        queries_and_keys = (values[f"{layer}.attn.{kind}"] for kind in "qk")
        q, k = (
            x.view(*x.shape[:2], -1, attention.d_head).transpose(1, 2) for x in queries_and_keys
        )
        patterns[layer] = last_pattern(
            q,
            k,
            part.last_positions,
            sink=attention.sink,
            scale=attention.scale,
            window=attention.window,
        )
    return logits, patterns


def _heads(masked_circuit: MaskedCircuit) -> list[tuple[int, int]]:
    """Return layer and number of the heads with a kept q, k or v channel."""
    width = masked_circuit.transformer.config.d_head
    return sorted(
        {
            (int(name.split(".")[0]), channel // width)
            for name, channels in masked_circuit.kept.items()
            if name.endswith((".attn.q", ".attn.k", ".attn.v"))
            for channel in channels.tolist()
        }
    )
