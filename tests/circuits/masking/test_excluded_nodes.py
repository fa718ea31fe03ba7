"""Masks without gates for some nodes, against masks of all nodes that are closed there."""

import pytest
import torch
from torch import Tensor

from wirework.circuits import Ablation, EdgeMasks
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


def random_mask(size: int, share: float, seed: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) < share


@pytest.fixture(scope="module")
def excluded(ablation: Ablation) -> Tensor:
    return random_mask(ablation.size, 0.3, 1)


@pytest.fixture(scope="module")
def smaller(ablation: Ablation, excluded: Tensor) -> Ablation:
    return ablation.without(excluded)


def test_only_other_nodes_have_gates_in_their_order(
    ablation: Ablation, excluded: Tensor, smaller: Ablation
) -> None:
    assert smaller.size == int((~excluded).sum())
    gates = torch.arange(1.0, smaller.size + 1)
    of_nodes = smaller.nodes(gates)
    assert torch.equal(of_nodes[~excluded], gates)
    assert not of_nodes[excluded].any()
    assert torch.equal(smaller.layers, ablation.layers[~excluded])


def test_it_is_the_model_with_these_nodes_ablated(
    ablation: Ablation, excluded: Tensor, smaller: Ablation, rows: TokenizedPairs
) -> None:
    gates = torch.stack([random_mask(smaller.size, share, 2) for share in (1, 0.7)]).float()
    full = torch.zeros(2, ablation.size)
    full[:, ~excluded] = gates
    expected = ablation.all_logit_diffs(full, rows)
    assert torch.equal(smaller.all_logit_diffs(gates, rows), expected)
    assert not torch.allclose(expected[0], ablation.all_logit_diffs(full * 0 + 1, rows)[0])
    rise = ablation.loss_increase(full[0], rows)
    assert torch.allclose(smaller.loss_increase(gates[0], rows), rise[~excluded], atol=1e-6)
    assert torch.allclose(
        smaller.untied().loss_increase(torch.ones(ablation.size), rows), rise * ~excluded, atol=1e-6
    )


def test_excluding_twice_is_excluding_both(ablation: Ablation, excluded: Tensor) -> None:
    more = random_mask(ablation.size, 0.3, 3)
    twice, once = ablation.without(excluded).without(more), ablation.without(excluded | more)
    gates = torch.arange(1.0, once.size + 1)
    assert twice.size == once.size
    assert torch.equal(twice.nodes(gates), once.nodes(gates))


def test_a_shared_gate_stays_for_the_other_node(ablation: Ablation) -> None:
    tied = Ablation.of(ablation.transformer, ablation.means, tie_qk=True)
    query = ablation.space.gates({"1.attn.q": [3]}) > 0
    fewer = tied.without(query)
    assert fewer.size == tied.size
    kept = fewer.nodes(torch.ones(fewer.size))
    assert fewer.space.locate((kept == 0).nonzero().flatten()) == [("1.attn.q", 3)]
    key = ablation.space.gates({"1.attn.k": [3]}) > 0
    assert fewer.without(key).size == tied.size - 1


def test_without_any_gate_everything_is_ablated(ablation: Ablation, rows: TokenizedPairs) -> None:
    empty = ablation.without(torch.ones(ablation.size, dtype=torch.bool))
    assert empty.size == 0
    expected = ablation.losses(torch.zeros(1, ablation.size), rows)
    assert torch.equal(empty.losses(torch.ones(1, 0), rows), expected)


def test_the_highest_value_of_the_nodes_of_a_gate(ablation: Ablation) -> None:
    values = torch.rand(ablation.size, generator=torch.Generator().manual_seed(4)) - 2
    tied = Ablation.of(ablation.transformer, ablation.means, tie_qk=True)
    query, key = (
        ablation.space.gates({"1.attn.q": [3]}) > 0,
        ablation.space.gates({"1.attn.k": [3]}) > 0,
    )
    pair = tied.highest(torch.where(query, 5.0, torch.where(key, 4.0, values)))
    assert (pair.max(), int((pair > 0).sum())) == (5, 1)
    fewer = tied.without(query)
    alone = fewer.highest(torch.where(query, 5.0, torch.where(key, 4.0, values)))
    assert (alone.max(), int((alone > 0).sum())) == (4, 1)
    assert alone[alone < 0].max() < 0  # a gate without a value above 0 keeps its own


def test_a_circuit_of_given_nodes_has_its_own_gates(
    ablation: Ablation, excluded: Tensor, smaller: Ablation, rows: TokenizedPairs
) -> None:
    mask = (random_mask(ablation.size, 0.5, 6) & ~excluded).float()
    circuit, expected = EdgeMasks.of(smaller, mask), EdgeMasks.of(ablation, mask)
    assert circuit.size == expected.size
    gates = torch.ones(1, circuit.size)
    assert torch.equal(circuit.losses(gates, rows), expected.losses(gates, rows))
    assert circuit.ablation.excluded is None


def test_a_node_that_the_model_lacks_is_refused(ablation: Ablation) -> None:
    with pytest.raises(InputError, match=r"the model has no node 0\.attn\.q\.16"):
        ablation.space.gates({"0.attn.q": [3, 16]})
    with pytest.raises(InputError, match=r"the model has no node 7\.attn\.q\.0"):
        ablation.space.gates({"7.attn.q": [0]})
