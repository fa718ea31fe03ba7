"""Searches against an adversary: a planted model whose mean-ablated circuit it breaks."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from hand_wired.edge_masks import link_
from torch import Tensor

from wirework.circuit_format import AttackPart
from wirework.circuits import Ablation, Circuit, EdgeMasks, node_means, prune
from wirework.circuits.masking.ascent import first_order_values, losses_and_gradient
from wirework.circuits.masking.masked_circuit import MaskedCircuit
from wirework.circuits.masking.value_range import ValueRange, value_range_on
from wirework.circuits.pruning.adversarial_search import (
    AdversarialSearch,
    Found,
    attack,
    breaks,
    with_first_adversary,
)
from wirework.circuits.pruning.adversarial_training import worst_values
from wirework.circuits.pruning.greedy_removal import GreedyRemoval
from wirework.config import PruneConfig
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs

CANCELLING = [("0.mlp.post_act", 3), ("0.mlp.post_act", 4)]
"""Neurons of `cancelling` that are equal at every token and write with opposite signs."""
QUICK = PruneConfig(
    trials=2,
    parallel=2,
    steps=30,
    batch_pairs=8,
    eval_pairs=16,
    lr=1e-2,
    k_coef=1e-3,
    ablation="adversarial",
    attack_steps=20,
)


@pytest.fixture(scope="module")
def cancelling(wired: Model) -> Model:
    """The hand-wired model with two neurons that move the answer unless they are equal."""
    model = Model(deepcopy(wired.transformer), wired.tokenizer)
    for (site, neuron), sign in zip(CANCELLING, (1, -1), strict=True):
        link_(model, ("0.mlp.act_in", 4), (site, neuron), 2.0)
        link_(model, (site, neuron), ("0.mlp.resid_delta", 2), 2.0 * sign)
    return model


@pytest.fixture(scope="module")
def quotes(wired: Model, task: Task) -> TokenizedPairs:
    return task.take(task.pairs[:8]).encode(wired.tokenizer, wired.config.n_ctx)


@pytest.fixture(scope="module")
def bounded(cancelling: Model, quotes: TokenizedPairs) -> Ablation:
    """Its masks, with the range of every node."""
    transformer = cancelling.transformer
    ablation = Ablation.of(transformer, node_means(transformer, [quotes.tokens]))
    bounds = value_range_on(transformer, [quotes.tokens])
    return replace_range(ablation, bounds.widened(ablation.space.join(ablation.means)))


def replace_range(ablation: Ablation, bounds: ValueRange) -> Ablation:
    return Ablation(ablation.transformer, ablation.space, ablation.means, value_range=bounds)


def all_but(ablation: Ablation, nodes: list[tuple[str, int]]) -> Tensor:
    mask = torch.ones(ablation.space.size)
    for site, channel in nodes:
        ablation.space.split(mask)[site][channel] = 0
    return mask


def sites_of(circuit) -> set[tuple[str, int]]:
    return {(node.site, node.index) for node in circuit.nodes}


class TestFirstOrderValues:
    def test_removed_nodes_move_with_the_gradient_of_their_values(self, bounded, quotes) -> None:
        mask = all_but(bounded, CANCELLING)
        masked_circuit = MaskedCircuit.of(bounded.with_mean_ablation(), mask)
        means = bounded.space.join(bounded.means).expand(len(quotes.tokens), -1)
        found = first_order_values(masked_circuit, quotes, bounded.value_range, means)
        _, gradient = losses_and_gradient(masked_circuit, quotes, means)
        removed = mask == 0
        rising, falling = gradient[:, removed] > 1e-6, gradient[:, removed] < -1e-6
        high, low = bounded.value_range.high[removed], bounded.value_range.low[removed]
        assert rising.any()
        assert falling.any()
        assert (found[:, removed] == high)[rising].all()
        assert (found[:, removed] == low)[falling].all()

    def test_every_mask_of_a_batch_has_its_own(self, bounded, quotes) -> None:
        masks = torch.stack([torch.ones(bounded.space.size), all_but(bounded, CANCELLING)])
        together = worst_values(bounded, masks, quotes, bounded.value_range)
        means = bounded.space.join(bounded.means).expand(len(quotes.tokens), -1)
        for mask, found in zip(masks, together.chunk(2), strict=True):
            masked_circuit = MaskedCircuit.of(bounded.with_mean_ablation(), mask)
            alone = first_order_values(masked_circuit, quotes, bounded.value_range, means)
            assert (found == alone).float().mean() > 0.99  # gradients near 0 can round to a sign


class TestShortAttack:
    def test_it_breaks_masks_without_the_nodes_that_cancel(self, bounded, quotes) -> None:
        for removed, broken in (([], False), (CANCELLING, True)):
            mask = all_but(bounded, removed)
            assert breaks(bounded.value_range, bounded, mask, quotes, 0.3) is broken
            edge_masks = EdgeMasks.of(bounded, mask)
            gates = torch.ones(edge_masks.size)
            assert breaks(bounded.value_range, edge_masks, gates, quotes, 0.3) is broken

    def test_what_it_breaks_is_not_within_a_target(self, bounded, quotes) -> None:
        mask = all_but(bounded, CANCELLING)
        attacked = replace(bounded, adversary=partial(breaks, bounded.value_range))
        assert bounded.within(mask, quotes, 0.3)
        assert not attacked.within(mask, quotes, 0.3)
        assert not EdgeMasks.of(attacked, mask).within(
            torch.ones(EdgeMasks.of(attacked, mask).size), quotes, 0.3
        )
        assert attacked.within(all_but(bounded, []), quotes, 0.3)

    def test_greedy_removal_keeps_what_it_needs(self, bounded, quotes) -> None:
        at = [int(all_but(bounded, [node]).argmin()) for node in CANCELLING]
        everything = all_but(bounded, [])
        attacked = replace(bounded, adversary=partial(breaks, bounded.value_range))
        for masks, removes in ((bounded, True), (attacked, False)):
            removal = GreedyRemoval(masks, everything, quotes, 0.3)
            assert removal.reached
            assert removal.close(torch.tensor(at)) is removes


class TestAttack:
    def test_it_breaks_a_circuit_without_the_nodes_that_cancel(self, bounded, quotes) -> None:
        for removed, is_broken in (([], False), (CANCELLING, True)):
            edge_masks = EdgeMasks.of(bounded, all_but(bounded, removed))
            gates = torch.ones(edge_masks.size)
            result = attack(edge_masks, gates, quotes, bounded.value_range, steps=10)
            at_means = float(edge_masks.losses(gates[None], quotes)[0])
            assert (result.loss > at_means + 0.3) is is_broken
            low, high = bounded.value_range
            assert ((low <= result.values) & (result.values <= high)).all()

    def test_its_values_give_its_loss_as_an_ablation_mode(self, bounded, quotes) -> None:
        mask = all_but(bounded, CANCELLING)
        edge_masks = EdgeMasks.of(bounded, mask)
        gates = torch.ones(edge_masks.size)
        result = attack(edge_masks, gates, quotes, bounded.value_range, steps=10)
        mode = bounded.with_adversary(result.values)
        assert float(mode.losses(mask[None], quotes)[0]) == pytest.approx(result.loss, abs=1e-4)


@dataclass
class Scripted:
    """A search that returns given circuits one after the other."""

    bounded: Ablation
    masks: list[Tensor]
    target: float = 0.3
    sets: list[int] = field(default_factory=list)

    def __call__(self, ablation: Ablation) -> Found:
        self.sets.append(len(ablation.adversaries))
        edge_masks = EdgeMasks.of(self.bounded, self.masks[len(self.sets) - 1])
        score = torch.zeros(self.bounded.size)
        return Found(edge_masks, torch.ones(edge_masks.size), score)

    def run(self, quotes: TokenizedPairs, rounds: int) -> tuple[Found, AttackPart]:
        def grown(mask: Tensor) -> tuple[EdgeMasks, Tensor]:
            edge_masks = EdgeMasks.of(self.bounded, mask)
            return edge_masks, torch.ones(edge_masks.size)

        search = AdversarialSearch(self, grown, quotes, self.target, rounds, steps=10)
        return search.run(with_first_adversary(self.bounded, quotes))


class TestAdversarialSearch:
    def test_what_breaks_a_circuit_joins_the_next_search(self, bounded, quotes) -> None:
        masks = [all_but(bounded, CANCELLING), all_but(bounded, [])]
        search = Scripted(bounded, masks)
        found, record = search.run(quotes, rounds=8)
        assert search.sets == [1, 2]
        assert (record.rounds, record.grown_nodes) == (2, 0)
        assert found.edge_masks.n_nodes == bounded.space.size
        assert record.loss <= 0.3

    def test_a_circuit_that_stays_broken_is_grown(self, bounded, quotes) -> None:
        search = Scripted(bounded, [all_but(bounded, CANCELLING)] * 2)
        _, record = search.run(quotes, rounds=2)
        assert (record.rounds, record.grown_nodes) == (2, 2)
        assert record.loss <= 0.3

    def test_a_model_that_misses_the_target_is_searched_once(self, bounded, quotes) -> None:
        masks = [all_but(bounded, CANCELLING)] * 2
        search = Scripted(bounded, masks, target=1e-9)
        _, record = search.run(quotes, rounds=8)
        assert (record.rounds, record.grown_nodes) == (1, 0)

    def test_the_circuit_of_the_search_withstands_what_breaks_that_of_the_means(
        self, cancelling, task, corpus
    ) -> None:
        plain = prune(
            cancelling, task, QUICK, ablation="mean", prune_edges=False, data=corpus, progress=False
        )
        assert not sites_of(plain) & set(CANCELLING)
        circuit = prune(cancelling, task, QUICK, prune_edges=False, data=corpus, progress=False)
        assert sites_of(circuit) >= sites_of(plain)
        assert circuit.reached
        record = circuit.document.provenance.attack
        assert record is not None
        assert record.loss <= QUICK.target_loss + 1e-5
        assert record.steps == 20
        assert len(sites_of(circuit)) < 30

    def test_the_record_is_saved(self, wired, task, corpus, tmp_path) -> None:
        circuit = prune(wired, task, QUICK, data=corpus, progress=False)
        circuit.save(tmp_path / "circuit")
        record = Circuit.load(tmp_path / "circuit").document.provenance.attack
        assert record == circuit.document.provenance.attack
        assert record is not None
        assert record.rounds >= 1

    def test_without_text_there_is_no_range(self, wired, task) -> None:
        with pytest.raises(InputError, match="no training text for this model"):
            prune(wired, task, QUICK, progress=False)


def test_embedding_edges_are_not_pruned_under_attack() -> None:
    with pytest.raises(InputError, match="embedding_edges needs mean or resample ablation"):
        PruneConfig.of({"ablation": "adversarial", "embedding_edges": True})


def test_records_of_other_searches_have_no_settings_of_the_attack() -> None:
    assert "attack_rounds" not in PruneConfig(ablation="resample").recorded()
    assert PruneConfig(ablation="adversarial").recorded()["attack_rounds"] == 8
