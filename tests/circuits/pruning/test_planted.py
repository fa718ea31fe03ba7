"""Circuits planted in hand-wired models: each is the one smallest there is, and the finder's."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import pytest
import torch
from hand_wired import PLANT, Corpus, Edge, Node, Planted
from hand_wired.competing import HEADS
from hand_wired.correlated import DISTRACTOR
from hand_wired.exclusive_or import NEURONS
from hand_wired.inhibited import INHIBITOR
from hand_wired.redundant import DETOUR
from plain_model import Left, PlainModel
from present import present
from torch import Tensor

from wirework.circuits import Ablation, find_edges, node_means, prune, training_windows
from wirework.config import PruneConfig
from wirework.tasks import TokenizedPairs

QUICK = PruneConfig(
    trials=3, parallel=2, steps=40, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)
TARGET = QUICK.target_loss


@dataclass(frozen=True)
class Case:
    """A planted model with what it takes to leave nodes and edges out."""

    planted: Planted

    @cached_property
    def corpus(self) -> Corpus:
        assert self.planted.model.tokenizer is not None
        return Corpus(self.planted.model.tokenizer, self.planted.task)

    @cached_property
    def rows(self) -> TokenizedPairs:
        model = self.planted.model
        assert model.tokenizer is not None
        return self.planted.task.encode(model.tokenizer, model.config.n_ctx)

    @cached_property
    def batches(self) -> list[Tensor]:
        return list(training_windows(self.corpus, self.planted.model.config.n_ctx, 2))

    @cached_property
    def ablation(self) -> Ablation:
        transformer = self.planted.model.transformer
        return Ablation.of(transformer, node_means(transformer, self.batches))

    @cached_property
    def every(self) -> list[Node]:
        return self.ablation.space.locate(torch.arange(self.ablation.space.size))

    def mask(self, nodes: Collection[Node]) -> Tensor:
        return torch.tensor([float(node in nodes) for node in self.every])

    def loss(self, nodes: Collection[Node]) -> float:
        """Return the task loss with these nodes kept and no others."""
        return float(self.ablation.losses(self.mask(nodes)[None], self.rows)[0])

    def outside(self, nodes: Collection[Node]) -> list[Node]:
        return [node for node in self.every if node not in nodes]

    def but(self, gone: Node) -> list[Node]:
        """Return the planted nodes without one."""
        return [node for node in self.planted.nodes if node != gone]


@pytest.fixture(scope="module", params=PLANT)
def case(request) -> Case:
    return Case(PLANT[request.param]())


@pytest.fixture(scope="module")
def redundant() -> Case:
    return Case(PLANT["redundant"]())


@pytest.fixture(scope="module")
def inhibited() -> Case:
    return Case(PLANT["inhibited"]())


def subsets(things: Collection) -> Iterator[tuple]:
    """Yield every subset."""
    for chosen in product((True, False), repeat=len(things)):
        yield tuple(one for one, stays in zip(things, chosen, strict=True) if stays)


def test_the_circuit_does_what_the_model_does(case: Case) -> None:
    assert case.loss(case.every) < 0.1
    assert case.loss(case.planted.nodes) < 0.1
    assert case.loss(case.outside(case.planted.nodes)) > 0.6
    plain = PlainModel(case.planted.model)
    left = Left(nodes=case.outside(case.planted.nodes), means=plain.means(case.batches))
    assert plain.loss(case.rows, left) == pytest.approx(case.loss(case.planted.nodes), abs=1e-5)


def test_no_node_of_it_can_go(case: Case) -> None:
    for node in case.planted.nodes:
        assert case.loss(case.but(node)) > 1.5 * TARGET


def test_of_all_subsets_of_twelve_nodes_it_is_the_one_smallest(case: Case) -> None:
    candidates = [*case.planted.nodes, *case.planted.rivals]
    assert len(candidates) == 12
    tried = list(subsets(candidates))
    few = case.rows.select(torch.arange(4))
    losses = case.ablation.losses(torch.stack([case.mask(nodes) for nodes in tried]), few)
    reach = [nodes for nodes, loss in zip(tried, losses, strict=True) if loss <= TARGET]
    smallest = min(map(len, reach))
    assert [nodes for nodes in reach if len(nodes) == smallest] == [tuple(case.planted.nodes)]


def test_its_edges_are_the_planted_and_the_idle_ones(case: Case) -> None:
    planted = case.planted
    found = find_edges(planted.model.transformer, planted.nodes)
    expected = sorted([*planted.edges, *planted.idle_edges])
    assert [(edge.source, edge.target) for edge in found] == [(s, t) for s, t, _ in expected]
    assert [edge.weight for edge in found] == pytest.approx([w for _, _, w in expected])


def test_of_all_subsets_of_its_edges_the_planted_ones_are_the_one_smallest(case: Case) -> None:
    planted, plain = case.planted, PlainModel(case.planted.model)
    edges = [*planted.edges, *planted.idle_edges]
    means, outside = plain.means(case.batches), case.outside(planted.nodes)
    few = case.rows.select(torch.arange(4))

    def reaches(kept: tuple[Edge, ...]) -> bool:
        cut = [(planted.nodes[s], planted.nodes[t]) for s, t, w in edges if (s, t, w) not in kept]
        return plain.loss(few, Left(nodes=outside, wires=cut, means=means)) <= TARGET

    reach = [kept for kept in subsets(edges) if reaches(kept)]
    assert tuple(edges) in reach
    smallest = min(map(len, reach))
    assert [kept for kept in reach if len(kept) == smallest] == [tuple(planted.edges)]


def test_the_rest_of_the_model_speaks_but_not_on_the_question(case: Case) -> None:
    ablation, rows = case.ablation, case.rows
    with torch.no_grad():
        whole = ablation.transformer(rows.tokens, rows.last_positions)
        with ablation.transformer.edited(ablation.edits(case.mask(case.planted.nodes))):
            alone = ablation.transformer(rows.tokens, rows.last_positions)
    assert (whole - alone).abs().mean() > 0.03
    assert case.loss(case.planted.nodes) == pytest.approx(case.loss(case.every), abs=0.02)


def test_the_finder_returns_it(case: Case) -> None:
    planted = case.planted
    found = prune(planted.model, planted.task, QUICK, data=case.corpus, progress=False)
    assert [(node.site, node.index) for node in found.nodes] == list(planted.nodes)
    joined = {(edge.source, edge.target) for edge in found.edges}
    assert joined == {(source, target) for source, target, _ in planted.edges}


def test_of_two_paths_either_is_enough(redundant: Case) -> None:
    short = redundant.planted.nodes
    assert redundant.loss(DETOUR) < 0.1
    both = set(short) & set(DETOUR)
    for node in set(short) - both:
        assert redundant.loss(redundant.outside([node])) < 0.1  # the other path stands in
    for node in DETOUR:  # left to itself, nothing of it can go either
        assert redundant.loss([other for other in DETOUR if other != node]) > 1.5 * TARGET
    assert redundant.loss(redundant.outside([*short, *DETOUR])) > 0.6


def test_the_inhibitor_holds_the_wrong_answer_back(inhibited: Case) -> None:
    planted, ablation = inhibited.planted, inhibited.ablation
    node = planted.nodes[INHIBITOR]
    above = ["for" in pair.prompts[1] for pair in planted.task.pairs]  # ends in a while
    masks = torch.stack(
        [inhibited.mask(inhibited.every), inhibited.mask(inhibited.outside([node]))]
    )
    intact, without = ablation.all_logit_diffs(masks, inhibited.rows)[:, 1::2]
    assert 8 < sum(above) < 56
    assert (intact > 0).all()
    assert (without[torch.tensor(above)] < 0).all()  # the `for` above wins
    assert [weight for source, _, weight in planted.edges if source == INHIBITOR] == [-0.3]


def planted_case(name: str) -> Case:
    return Case(PLANT[name]())


def test_there_are_twelve() -> None:
    assert len(PLANT) == 12


def test_of_superposed_features_one_channel_alone_leaves_half_of_the_pairs_open() -> None:
    case = planted_case("superposed")
    for channel in (0, 8):
        mask = case.mask(case.but(("0.attn.act_in", channel)))
        diffs = case.ablation.all_logit_diffs(mask[None], case.rows)[0].reshape(-1, 2)
        assert (diffs.amax(1) > 3).all()  # one gender of each number still speaks
        assert (diffs.abs().amin(1) < 1).all()  # the other says nothing


def test_all_of_three_values_are_answered() -> None:
    case = planted_case("three-valued")
    task = case.planted.task
    asked = {answer for pair in task.pairs for answer in pair.answers}
    diffs = case.ablation.all_logit_diffs(case.mask(case.planted.nodes)[None], case.rows)[0]
    assert asked == {".append", ".update", ".add"}
    assert (diffs > 3).all()


def test_without_one_of_two_competing_heads_the_other_wins() -> None:
    case = planted_case("competing heads")
    planted = case.planted
    for head, first_wins in zip(HEADS, (False, True), strict=True):
        means = {site: mean.clone() for site, mean in case.ablation.means.items()}
        site, channel = planted.nodes[head]
        means[site][channel] = 0.0  # no moves of this kind
        silenced = Ablation.of(planted.model.transformer, means)
        diffs = silenced.all_logit_diffs(
            case.mask(case.outside([(site, channel)]))[None], case.rows
        )
        first, second = diffs[0].reshape(-1, 2).unbind(1)
        assert ((first if first_wins else second) >= 0).all()
        assert ((second if first_wins else first) <= 0).all()


def test_a_correlated_distractor_tells_the_answer_and_changes_none() -> None:
    case = planted_case("correlated distractor")
    planted, rows = case.planted, case.rows
    site = DISTRACTOR[-1][0]
    _, values = planted.model.run_with_cache(rows.tokens, [site])
    at_last = values[site][torch.arange(len(rows.tokens)), rows.last_positions, DISTRACTOR[-1][1]]
    first, second = at_last.reshape(-1, 2).unbind(1)
    agreeing = (first > second).double().mean()
    assert agreeing == pytest.approx(7 / 8)
    masks = torch.stack([case.mask(case.every), case.mask(case.outside(DISTRACTOR))])
    whole, without = case.ablation.all_logit_diffs(masks, rows)
    assert (whole > 3).all()
    assert (without > 3).all()
    # It shares the final norm with the answer, which scales the difference.
    torch.testing.assert_close(whole, without, atol=0.0, rtol=0.3)


def test_each_neuron_of_the_exclusive_or_answers_for_one_kind_of_agreement() -> None:
    case = planted_case("exclusive or")
    planted = case.planted
    site = planted.nodes[NEURONS[0]][0]
    _, values = planted.model.run_with_cache(case.rows.tokens, [site])
    at_last = values[site][torch.arange(len(case.rows.tokens)), case.rows.last_positions]
    lit, dark = at_last[0::2, :2], at_last[1::2, :2]
    assert (lit < 0.5).all()
    assert (dark.amax(1) > 1.5).all()
    assert (dark.amin(1) < 0.5).all()
    assert len(dark.argmax(1).unique()) == 2


def test_a_relayed_value_is_written_by_the_earlier_head() -> None:
    case = planted_case("relay")
    planted = case.planted
    first_hop = planted.nodes[2]
    assert first_hop == ("0.attn.resid_delta", 2)
    assert planted.nodes[3] == ("1.attn.act_in", 2)
    _, values = planted.model.run_with_cache(case.rows.tokens, ["0.attn.v", "1.attn.v"])
    red = present(planted.model.tokenizer).encode(" red")[0]
    of_colour = case.rows.tokens == red
    handed_on = of_colour.roll(1, 1)  # a head that sees two tokens
    assert (values["0.attn.v"][..., 1][of_colour] > 0.5).all()
    assert (values["1.attn.v"][..., 1][handed_on & ~of_colour] > 0.2).all()
