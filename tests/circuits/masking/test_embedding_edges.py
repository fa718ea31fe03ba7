"""Embedding edges, against a model whose embedding is edited by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from hand_wired import quote_closer
from torch import Tensor

from wirework.circuit_format import EMBED, TokenGroup
from wirework.circuits import Ablation, EdgeMasks, clean_up
from wirework.circuits.masking.embedding_edges import (
    EmbeddingEdges,
    EmbeddingMasks,
    answer_channels,
    read_channels,
)
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs


def group(name: str, ids: list[int], unseen: tuple[int, ...] = ()) -> TokenGroup:
    return TokenGroup(
        name=name, tokens=tuple(map(str, ids)), token_ids=tuple(ids), unseen_ids=unseen
    )


def masks_on(ablation: Ablation, rows: TokenizedPairs) -> EmbeddingMasks:
    """Return embedding edges of a circuit of random nodes, whose embedding has another mean."""
    generator = torch.Generator().manual_seed(7)
    mean = torch.randn(ablation.transformer.config.d_model, generator=generator)
    ablation = replace(ablation, means={**ablation.means, EMBED: mean})
    nodes = (torch.rand(ablation.size, generator=generator) < 0.2).float()
    edge_masks = EdgeMasks.of(ablation, nodes)
    used = sorted(set(rows.tokens.flatten().tolist()))
    unseen = tuple(token for token in range(400) if token not in used)
    groups = [group("a", used[::3], unseen), group("b", used[1::3]), group("c", used[2::3])]
    edges = EmbeddingEdges.of(ablation.transformer, groups, read_channels(edge_masks, rows))
    gates = torch.ones(edge_masks.size)
    gates[edge_masks.n_nodes :: 5] = 0
    return EmbeddingMasks(edge_masks, gates, edges)


@pytest.fixture(scope="module")
def masks(ablation: Ablation, rows: TokenizedPairs) -> EmbeddingMasks:
    return masks_on(ablation, rows)


def some_gates(masks: EmbeddingMasks, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(count, masks.size, generator=generator) < 0.6).float()


@torch.no_grad()
def edited_by_hand(masks: EmbeddingMasks, gates: Tensor) -> Transformer:
    """Return a copy of the model in whose embedding the removed entries are replaced."""
    plain = copy.deepcopy(masks.transformer)
    mean = masks.edge_masks.ablation.means[EMBED]
    kept = {tuple(end) for end, gate in zip(masks.edges.ends.tolist(), gates, strict=True) if gate}
    for c, channel in enumerate(masks.edges.channels.tolist()):
        for u, tokens in enumerate(masks.edges.groups):
            own = plain.embed.weight[list(tokens.token_ids), channel]
            value = mean[channel] if own.any() else 0.0
            if (c, u) not in kept:
                for token in (*tokens.token_ids, *tokens.unseen_ids):
                    plain.embed.weight[token, channel] = value
    return plain


class TestEmbeddingMasks:
    def test_removed_entries_are_the_mean_of_their_channel(
        self, masks: EmbeddingMasks, rows: TokenizedPairs
    ):
        gates = some_gates(masks, 1)
        plain = edited_by_hand(masks, gates[0])
        ablation = replace(masks.edge_masks.ablation, transformer=plain)
        expected = replace(masks.edge_masks, ablation=ablation).logit_diffs(masks.gates[None], rows)
        found = masks.logit_diffs(gates, rows)
        assert torch.allclose(found, expected, atol=1e-4)
        everything = masks.logit_diffs(torch.ones_like(gates), rows)
        assert not torch.allclose(found, everything, atol=1e-2)

    def test_tokens_of_a_group_without_entries_read_zero(self, ablation: Ablation):
        embed = ablation.transformer.embed.weight.detach()
        channel = 0
        empty, full = (
            (embed[:, channel] == 0).nonzero().flatten().tolist(),
            embed[:, channel].nonzero().flatten().tolist(),
        )
        groups = [group("empty", empty[:2], tuple(full[:1])), group("full", full[1:3])]
        edges = EmbeddingEdges.of(ablation.transformer, groups, [channel])
        assert edges.ends.tolist() == [[0, 1]]
        removed = edges.removed(torch.zeros(1, 1), len(embed))
        tokens = torch.tensor([[empty[0], full[0], full[1], full[3]]])
        change = removed.change(tokens, embed[tokens][..., [channel]], torch.full((16,), 5.0))
        values = (embed[tokens][..., [channel]] + change).flatten()
        # the last token is in no group and stays
        assert torch.allclose(values, torch.tensor([0.0, 0.0, 5.0, float(embed[full[3], channel])]))

    def test_masks_in_one_pass_are_those_one_at_a_time(
        self, masks: EmbeddingMasks, rows: TokenizedPairs
    ):
        gates = some_gates(masks, 3)
        together = masks.logit_diffs(gates, rows)
        alone = torch.cat([masks.logit_diffs(one[None], rows) for one in gates])
        assert torch.allclose(together, alone, atol=1e-4)

    def test_a_small_model_has_the_same_outputs(self, masks: EmbeddingMasks, rows: TokenizedPairs):
        (gates,) = some_gates(masks, 1)
        compact = masks.compact(gates)
        assert compact is not None
        expected = masks.logit_diffs(gates[None], rows)[0]
        assert torch.allclose(compact.logit_diffs(rows), expected, atol=1e-4)

    def test_all_kept_is_the_circuit(self, masks: EmbeddingMasks, rows: TokenizedPairs):
        expected = masks.edge_masks.logit_diffs(masks.gates[None], rows)
        assert torch.equal(masks.logit_diffs(torch.ones(1, masks.size), rows), expected)

    def test_gradients_reach_the_gates(self, masks: EmbeddingMasks, rows: TokenizedPairs):
        gates = torch.ones(1, masks.size, requires_grad=True)
        (slope,) = torch.autograd.grad(masks.logit_diffs(gates, rows).sum(), gates)
        assert slope.count_nonzero() > 3

    def test_a_mask_that_reaches_no_target_stays(self, masks: EmbeddingMasks, rows: TokenizedPairs):
        everything = torch.ones(masks.size)
        assert torch.equal(clean_up(masks, everything, rows, 1e-9), everything)

    def test_a_circuit_that_reads_no_channel_has_no_edges(
        self, masks: EmbeddingMasks, rows: TokenizedPairs
    ):
        edges = EmbeddingEdges.of(masks.transformer, masks.edges.groups, [])
        none = replace(masks, edges=edges)
        assert none.size == 0
        assert torch.equal(clean_up(none, torch.ones(0), rows, 5.0), torch.ones(0))
        expected = masks.edge_masks.logit_diffs(masks.gates[None], rows)
        assert torch.equal(none.logit_diffs(torch.ones(1, 0), rows), expected)

    @pytest.mark.parametrize("by", ["adversary", "prompt_values"])
    def test_nodes_under_adversarial_ablation_are_refused(self, masks: EmbeddingMasks, by: str):
        ablation = masks.edge_masks.ablation
        values = {"adversary": lambda *_: False, "prompt_values": torch.zeros(2, ablation.size)}
        attacked = replace(masks.edge_masks, ablation=replace(ablation, **{by: values[by]}))
        with pytest.raises(AssertionError, match="no gates under adversarial ablation"):
            replace(masks, edge_masks=attacked)

    def test_the_part_of_the_file_gives_the_same_masks(self, masks: EmbeddingMasks):
        (gates,) = some_gates(masks, 1)
        part = masks.edges.part(gates)
        edges, kept = EmbeddingEdges.of_part(part, masks.transformer)
        assert torch.equal(kept, gates)
        assert torch.equal(edges.entries, masks.edges.entries)
        assert part.n_all == masks.size

    def test_an_edge_that_the_model_lacks_is_refused(self, masks: EmbeddingMasks):
        part = masks.edges.part(torch.ones(masks.size))
        other = copy.deepcopy(masks.transformer)
        with torch.no_grad():
            other.embed.weight.zero_()
        with pytest.raises(InputError, match=r"has an embedding edge from .* the model none"):
            EmbeddingEdges.of_part(part, other)


def test_channels_that_neither_nodes_nor_answers_read_are_left_out():
    planted = quote_closer.plant()
    model = planted.model
    assert model.tokenizer is not None
    batch = planted.task.encode(model.tokenizer, model.config.n_ctx)
    assert answer_channels(model.transformer, batch) == [2]
