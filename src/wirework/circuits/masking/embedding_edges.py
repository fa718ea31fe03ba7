"""Embedding edges: what token groups write to residual channels through the embedding.

- An embedding edge joins a token group to a residual channel that the circuit reads. It stands for
  the entries of the group's tokens at this channel.
- A removed edge is mean-ablated: all tokens of the group take the channel's mean over text.
- Where no token of the task's prompts has an entry there is no edge, and the group is zero.
- The other channels keep their entries. Only norms and AbsTopK depend on them.

Shapes: R masks, M embedding edges, U token groups, C channels, B prompts, T tokens, V vocabulary,
D d_model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from wirework.circuit_format import EmbeddingEdge, EmbeddingPart, TokenGroup
from wirework.circuits.masking.compact import CompactCircuit
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.masks import Masks
from wirework.circuits.masking.removed_entries import RemovedEntries
from wirework.config import LossReduction
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs


@dataclass(frozen=True)
class EmbeddingEdges:
    """The embedding edges of a circuit."""

    groups: Sequence[TokenGroup]
    channels: Tensor
    """(C,) int64, the residual channels that the circuit reads, ascending."""
    entries: Tensor
    """(C, U) int64, number of nonzero entries of the tokens in the prompts; 0 without an edge."""

    @classmethod
    @torch.no_grad()
    def of(
        cls, transformer: Transformer, groups: Sequence[TokenGroup], channels: Sequence[int]
    ) -> Self:
        """Return all edges from some token groups to some residual channels."""
        embed = transformer.embed.weight
        entries = [embed[list(group.token_ids)].count_nonzero(0) for group in groups]
        chosen = torch.tensor(channels, dtype=torch.int64, device=embed.device)
        return cls(groups, chosen, torch.stack(entries, 1)[chosen])

    @property
    def ends(self) -> Tensor:
        """(M, 2) int64, each edge as an index into `channels` and one into `groups`."""
        return self.entries.nonzero()

    def removed(self, gates: Tensor, vocab_size: int) -> RemovedEntries:
        """Return what masks (R, M) remove."""
        ends = self.ends
        kept = gates.new_zeros(len(gates), len(self.groups) + 1, len(self.channels))
        kept[:, ends[:, 1], ends[:, 0]] = gates
        kept[:, -1] = 1  # tokens of no group
        group_of_token = torch.full((vocab_size,), len(self.groups), device=self.channels.device)
        for number, group in enumerate(self.groups):
            group_of_token[[*group.token_ids, *group.unseen_ids]] = number
        has_mean = torch.cat([self.entries.T > 0, self.entries.new_zeros(1, len(kept[0, 0])) > 0])
        return RemovedEntries(group_of_token, self.channels, kept, has_mean)

    def part(self, gates: Tensor) -> EmbeddingPart:
        """Return the part of circuit.json for one mask (M,)."""
        kept = self.ends[gates.to(self.channels.device) > 0].tolist()
        channels = self.channels.tolist()
        return EmbeddingPart(
            groups=tuple(self.groups),
            channels=tuple(channels),
            edges=tuple(
                EmbeddingEdge(group=u, channel=channels[c], n_entries=int(self.entries[c, u]))
                for c, u in kept
            ),
            n_all=len(self.ends),
        )

    @classmethod
    def of_part(
        cls, part: EmbeddingPart, transformer: Transformer
    ) -> "tuple[EmbeddingEdges, Tensor]":
        """Return the edges of a part of circuit.json and the mask (M,) of those that it keeps.

        Raises:
            InputError: the model has no entry of a kept edge.
        """
        edges = cls.of(transformer, part.groups, part.channels)
        kept = {(edge.channel, edge.group) for edge in part.edges}
        ends = [(part.channels[c], u) for c, u in edges.ends.tolist()]
        if foreign := kept - set(ends):
            channel, group = min(foreign)
            raise InputError(
                f"the circuit has an embedding edge from {part.groups[group].name!r} to channel "
                f"{channel}, the model none"
            )
        return edges, torch.tensor([float(end in kept) for end in ends])


@dataclass(frozen=True)
class EmbeddingMasks(Masks):
    """Masks over the embedding edges of a circuit whose nodes and edges are fixed.

    The nodes have mean or resample ablation. Under adversarial ablation the inherited `of_batch`
    and `withstands` would leave out the adversary's values and its attack.
    """

    edge_masks: EdgeMasks
    gates: Tensor
    """(G,), gates of the circuit's nodes and edges."""
    edges: EmbeddingEdges

    def __post_init__(self) -> None:
        ablation = self.edge_masks.ablation
        is_adversarial = ablation.adversary is not None or ablation.prompt_values is not None
        assert not is_adversarial, "embedding edges have no gates under adversarial ablation"

    @property
    def transformer(self) -> Transformer:  # type: ignore[override]
        """The model."""
        return self.edge_masks.transformer

    @property
    def size(self) -> int:
        """M, the number of embedding edges."""
        return len(self.edges.ends)

    @property
    def layers(self) -> Tensor:
        """(M,) int64, -1: the embedding is in front of the first layer."""
        return torch.full((self.size,), -1)

    @property
    def is_resampled(self) -> bool:
        """Whether removed nodes take resampled values."""
        return self.edge_masks.is_resampled

    @property
    def loss_reduction(self) -> LossReduction:
        """How losses and targets combine the two prompts of a pair."""
        return self.edge_masks.loss_reduction

    def ablation_modes(self) -> "tuple[EmbeddingMasks, ...]":
        """Return these masks once per ablation mode of the nodes (resamples, then means)."""
        return tuple(replace(self, edge_masks=mode) for mode in self.edge_masks.ablation_modes())

    @contextmanager
    def applied(self, gates: Tensor) -> Iterator[None]:
        """Ablate with masks (R, M) inside a `with` block; see `Masks.applied`."""
        with self.masked(gates).applied(self.gates.expand(len(gates), -1)):
            yield

    def compact(self, gates: Tensor) -> CompactCircuit | None:
        """Return a small model of one mask (M,); see `Masks.compact`."""
        return self.masked(gates[None]).compact(self.gates)

    def masked(self, gates: Tensor) -> EdgeMasks:
        """Return the masks over nodes and edges without the entries that masks (R, M) remove."""
        removed = self.edges.removed(gates.to(self.device), len(self.transformer.embed.weight))
        return replace(self.edge_masks, removed_entries=removed)


def read_channels(edge_masks: EdgeMasks, batch: TokenizedPairs) -> list[int]:
    """Return the residual channels through which the embedding reaches the logits of the answers.

    Args:
        edge_masks: masks over the nodes of a circuit, of which the act_in nodes read the residual
            stream.
        batch: tokenised pairs, whose answers differ in their unembedding at some channels.
    """
    d_model = edge_masks.transformer.config.d_model  # act_in channels above it are positions
    read = {c for site, c in edge_masks.kept if site.endswith("act_in") and c < d_model}
    return sorted(read | set(answer_channels(edge_masks.transformer, batch)))


def answer_channels(transformer: Transformer, batch: TokenizedPairs) -> list[int]:
    """Return the channels at which the unembedding of the two answers of a prompt differs."""
    weight = transformer.unembed.weight.detach()
    answers = sorted(set(map(tuple, batch.answers.tolist())))
    right, wrong = torch.tensor(answers, device=weight.device).unbind(1)
    channels: list[int] = (weight[right] != weight[wrong]).any(0).nonzero().flatten().tolist()
    return channels
