import copy

import pytest
import torch
from present import present

from wirework.circuits import Ablation, NodeSpace, clean_up, find_edges
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn.rewire import rewired
from wirework.tasks import Task, TokenizedPairs, differences


@pytest.fixture(scope="module")
def edge_masks(ablation: Ablation) -> EdgeMasks:
    generator = torch.Generator().manual_seed(7)
    return EdgeMasks.of(ablation, (torch.rand(ablation.size, generator=generator) < 0.7).float())


def some_gates(edge_masks: EdgeMasks, seed: int, share: float = 0.7) -> torch.Tensor:
    return (
        torch.rand(edge_masks.size, generator=torch.Generator().manual_seed(seed)) < share
    ).float()


class TestEdgeMasks:
    def test_all_edges_kept_is_the_circuit_of_the_nodes(
        self, edge_masks: EdgeMasks, rows: TokenizedPairs
    ) -> None:
        gates = torch.ones(1, edge_masks.size)
        nodes = edge_masks.ablation.logit_diffs(edge_masks.mask(gates), rows)
        assert torch.equal(edge_masks.logit_diffs(gates, rows), nodes)
        assert (
            len(edge_masks.edges())
            == len(find_edges(edge_masks.transformer, edge_masks.kept))
            > 100
        )

    def test_a_cut_edge_is_a_zero_weight_and_a_constant_in_its_place(
        self, edge_masks: EdgeMasks, rows: TokenizedPairs
    ) -> None:
        gates = torch.cat(
            [torch.ones(edge_masks.n_nodes), some_gates(edge_masks, 8)[edge_masks.n_nodes :]]
        )
        plain = copy.deepcopy(edge_masks.transformer)
        weights = dict(plain.named_parameters())
        with torch.no_grad():
            for edge, gate in zip(
                edge_masks.edges(), gates[edge_masks.n_nodes :].tolist(), strict=True
            ):
                if not gate:
                    cut_by_hand(weights, edge_masks, edge.source, edge.target)
        by_hand = Ablation.of(plain, edge_masks.ablation.means)
        expected = by_hand.all_logit_diffs(edge_masks.mask(gates[None]), rows)
        found = edge_masks.all_logit_diffs(gates[None], rows)
        assert torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(
            found, edge_masks.all_logit_diffs(torch.ones_like(gates)[None], rows)
        )

    def test_masks_in_one_pass_are_those_one_at_a_time(
        self, edge_masks: EdgeMasks, rows: TokenizedPairs
    ) -> None:
        gates = torch.stack([some_gates(edge_masks, seed, 0.9) for seed in range(4)])
        together = edge_masks.logit_diffs(gates, rows)
        for r in range(4):
            alone = edge_masks.logit_diffs(gates[r : r + 1], rows)[0]
            assert torch.allclose(together[r], alone, atol=1e-4)

    def test_gradients_reach_the_gates_of_nodes_and_edges(
        self, edge_masks: EdgeMasks, rows: TokenizedPairs
    ) -> None:
        few = rows.select(torch.arange(2))
        gates = torch.ones(1, edge_masks.size, requires_grad=True)
        (slope,) = torch.autograd.grad(edge_masks.logit_diffs(gates, few).sum(), gates)
        edges = slope[0, edge_masks.n_nodes :]
        assert slope[0, : edge_masks.n_nodes].count_nonzero() > 10
        # A gate acts linearly on what its target reads: the slope is that of a small step.
        best = int(edges.abs().argmax()) + edge_masks.n_nodes
        step = torch.ones(1, edge_masks.size)
        step[0, best] -= 1e-3
        with torch.no_grad():
            moved = (
                edge_masks.logit_diffs(gates, few).sum() - edge_masks.logit_diffs(step, few).sum()
            )
        assert float(moved) / 1e-3 == pytest.approx(float(slope[0, best]), rel=0.1)

    def test_an_edge_without_an_end_is_closed_and_never_missed(
        self, edge_masks: EdgeMasks, rows: TokenizedPairs
    ) -> None:
        gates = some_gates(edge_masks, 9, 0.9)
        without_dangling_edges = edge_masks.without_dangling_edges(gates)
        assert without_dangling_edges.sum() < gates.sum()
        for edge, gate in zip(
            edge_masks.edges(), without_dangling_edges[edge_masks.n_nodes :].tolist(), strict=True
        ):
            assert gate <= min(gates[edge.source], gates[edge.target])
        both = edge_masks.all_logit_diffs(torch.stack([gates, without_dangling_edges]), rows)
        assert torch.allclose(both[0], both[1], atol=1e-4)
        left, open_ = edge_masks.compacted(gates)
        assert left.n_nodes == int(gates[: edge_masks.n_nodes].sum())
        assert open_[: left.n_nodes].all()
        assert int(open_.sum()) == int(without_dangling_edges.sum())
        assert torch.allclose(left.all_logit_diffs(open_[None], rows)[0], both[1], atol=1e-4)


def cut_by_hand(weights, edge_masks: EdgeMasks, source: int, target: int) -> None:
    (site, column), (to, row) = edge_masks.kept[source], edge_masks.kept[target]
    layer, part = to.split(".", 1)
    inner = edge_masks.ablation.space.widths["0.attn.q"]
    name, row, read = {
        "attn.q": ("attn.qkv", row, site),
        "attn.k": ("attn.qkv", inner + row, site),
        "attn.v": ("attn.qkv", 2 * inner + row, site),
        "attn.resid_delta": ("attn.out", row, f"{layer}.attn.y"),
        "mlp.post_act": ("mlp.up", row, site),
        "mlp.resid_delta": ("mlp.down", row, site),
    }[part]
    weight, bias = (weights[f"blocks.{layer}.{name}.{kind}"] for kind in ("weight", "bias"))
    bias[row] += weight[row, column] * edge_masks.ablation.means[read][column]
    weight[row, column] = 0


def test_idle_edges_go(wired: Model, task: Task) -> None:
    rows = task.take(task.pairs[:12]).encode(wired.tokenizer, 80)
    from wirework.circuits import node_means

    ablation = Ablation.of(wired.transformer, node_means(wired.transformer, [rows.tokens]))
    edge_masks = EdgeMasks.of(ablation, torch.ones(ablation.size))
    left, gates = edge_masks.compacted(
        clean_up(edge_masks, torch.ones(edge_masks.size), rows, 0.15)
    )
    edges = [
        (*left.kept[edge.source], *left.kept[edge.target])
        for edge, gate in zip(left.edges(), gates[left.n_nodes :].tolist(), strict=True)
        if gate
    ]
    assert edges == [
        ("0.attn.act_in", 3, "0.attn.k", 0),
        ("0.attn.act_in", 0, "0.attn.v", 1),
        ("0.attn.v", 1, "0.attn.resid_delta", 2),
    ]


def test_ties_join_query_and_key_of_a_channel(ablation: Ablation, rows: TokenizedPairs) -> None:
    tied = Ablation.of(ablation.transformer, ablation.means, tie_qk=True)
    assert tied.size == ablation.size - 2 * 16
    gates = torch.ones(tied.size)
    q = NodeSpace.of(tied.transformer).gates({"1.attn.q": [3]}).nonzero()
    gates[present(tied.tie)[q]] = 0
    off = tied.space.locate((tied.nodes(gates) == 0).nonzero().flatten())
    assert off == [("1.attn.q", 3), ("1.attn.k", 3)]
    assert torch.equal(
        tied.all_logit_diffs(gates[None], rows),
        ablation.all_logit_diffs(tied.nodes(gates)[None], rows),
    )


def test_rewiring_ends_with_its_block(wired: Model, task: Task) -> None:
    rows = task.take(task.pairs[:2]).encode(wired.tokenizer, 80)
    before = differences(wired.transformer, rows)
    with (
        pytest.raises(ZeroDivisionError) as stop,
        rewired(wired.transformer, {"blocks.0.attn.out": lambda read, given: given * 0}),
    ):
        raise ZeroDivisionError(not torch.equal(differences(wired.transformer, rows), before))
    assert "True" in str(stop.value)
    assert torch.equal(differences(wired.transformer, rows), before)
    with (
        pytest.raises(InputError, match=r"no matrix 'blocks.0.attn.outt' .*did you mean"),
        rewired(wired.transformer, {"blocks.0.attn.outt": lambda read, given: given}),
    ):
        pass
    with (
        pytest.raises(InputError, match="a rewiring turned shape"),
        rewired(wired.transformer, {"blocks.0.attn.out": lambda read, given: given[..., :1]}),
    ):
        differences(wired.transformer, rows)
