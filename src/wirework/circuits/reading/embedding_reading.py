"""Which tokens a circuit reads from the embedding, and what each of these edges is worth."""

from dataclasses import dataclass, replace

from wirework.circuits.masking.embedding_edges import (
    EmbeddingEdges,
    EmbeddingMasks,
    answer_channels,
)
from wirework.circuits.validation.context import ValidationContext
from wirework.node_names import node_name
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

_SHOWN = 5
"""Tokens that are listed of an edge."""


@dataclass(frozen=True, repr=False)
class EmbeddingReading(Report):
    """An embedding edge in words: who reads which tokens."""

    channel: int
    """Residual channel."""
    readers: tuple[str, ...]
    """Kept nodes that read the channel, by name; `unembedding` if the logits of the answers do."""
    group: str
    """The token group in words."""
    tokens: tuple[str, ...]
    """Its tokens with the largest entries by magnitude, at most five."""
    n_entries: int
    """Nonzero entries of its tokens in the prompts of the search."""
    mean_entry: float
    """Their mean."""
    loss_without: float
    """Task loss in nats of the circuit without this edge, on held-out pairs."""


def read_embedding(
    context: ValidationContext, held_out: TokenizedPairs
) -> tuple[EmbeddingReading, ...] | None:
    """Return the reading of each kept embedding edge, by channel; None if none were pruned.

    Args:
        context: the circuit on its model.
        held_out: held-out pairs.
    """
    part = context.circuit.document.embedding_edges
    if part is None:
        return None
    transformer, masks = context.edge_masks.transformer, context.edge_masks
    plain = replace(masks, ablation=replace(masks.ablation, loss_reduction="mean"))
    edges, gates = EmbeddingEdges.of_part(part, transformer)
    embedding_masks = EmbeddingMasks(plain, context.gates, edges)
    kept = gates.nonzero()
    without = gates.repeat(len(kept), 1).scatter_(1, kept, 0)
    losses = [float(embedding_masks.losses(mask[None], held_out)[0]) for mask in without]
    answers = set(answer_channels(transformer, held_out))
    embed = transformer.embed.weight.detach().float().cpu()
    readings = []
    for edge, loss in zip(part.edges, losses, strict=True):
        group = part.groups[edge.group]
        entries = embed[list(group.token_ids), edge.channel]
        strongest = entries.abs().sort(descending=True, stable=True).indices.tolist()
        readers = [
            node_name(node.site, node.index)
            for node in context.circuit.nodes
            if node.site.endswith("act_in") and node.index == edge.channel
        ]
        readings.append(
            EmbeddingReading(
                channel=edge.channel,
                readers=(*readers, *(["unembedding"] if edge.channel in answers else [])),
                group=group.name,
                tokens=tuple(
                    group.tokens[number] for number in strongest[:_SHOWN] if entries[number]
                ),
                n_entries=edge.n_entries,
                mean_entry=float(entries[entries != 0].double().mean()),
                loss_without=loss,
            )
        )
    return tuple(readings)
