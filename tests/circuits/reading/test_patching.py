"""Swaps and constant values of a circuit's nodes, against numbers that follow from its wiring."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hand_wired import quote_closer, relay
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Planted
from present import present

from wirework.circuits.held_out import pairs_of
from wirework.circuits.reading.patching import Patcher, with_common_places
from wirework.circuits.reading.places import Recorded
from wirework.circuits.validation.context import ValidationContext
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


@pytest.fixture(scope="module")
def planted() -> Planted:
    return quote_closer.plant()


@pytest.fixture(scope="module")
def patcher(planted: Planted) -> Patcher:
    circuit = circuit_of(planted)
    pairs = pairs_of(circuit.document, planted.model, planted.task)
    context = ValidationContext.of(circuit, planted.model, pairs, None)
    others = Recorded.of(context.masked_circuit, context.train)
    return Patcher.of(context.masked_circuit, context.held_out, circuit.means, others)


def test_swapping_every_node_at_both_places_is_swapping_the_prompts(patcher: Patcher):
    """The prompts differ in the quote only, so the value there is all that the answer needs."""
    every = {site: torch.arange(len(c)) for site, c in patcher.recorded.channels.items()}
    swap = patcher.swap(every, "deciding")
    assert swap.n_prompts == 2 * patcher.recorded.batch.n_pairs
    assert (swap.flipped, swap.moved) == (1.0, pytest.approx(1.0))


def test_a_swap_where_the_node_says_nothing_has_no_effect(patcher: Patcher):
    swap = patcher.swap({"0.attn.v": torch.tensor([0])}, "last")
    assert (swap.flipped, swap.moved) == (0.0, pytest.approx(0.0))


def test_ablated_nodes_take_the_mean_over_text(planted: Planted, patcher: Patcher):
    """Without its value the head writes one value for both contexts: the loss is chance or more."""
    loss = patcher.loss_with(ablated={"0.attn.v": torch.tensor([0])})
    assert loss >= 0.69
    assert patcher.loss() < 0.01
    every = {site: torch.arange(len(c)) for site, c in patcher.recorded.channels.items()}
    circuit = circuit_of(planted)
    ablation, _ = circuit.ablation(planted.model)
    nothing = torch.zeros(1, ablation.size)
    expected = float(ablation.losses(nothing, patcher.recorded.batch)[0])
    assert patcher.loss_with(ablated=every) == pytest.approx(expected, abs=1e-5)


def test_fixed_nodes_take_their_average_over_the_prompts(patcher: Patcher):
    value = patcher.averages["0.attn.v"][1]
    recorded = patcher.recorded.values["0.attn.v"][..., 0]
    assert abs(value) <= recorded.abs().max()
    assert patcher.averages["0.attn.v"][0] == patcher.means["0.attn.v"][0]  # not in the circuit
    fixed = patcher.loss_with(fixed={"0.attn.k": torch.tensor([0])})
    ablated = patcher.loss_with(ablated={"0.attn.k": torch.tensor([0])})
    assert fixed > 0.3  # an even key sees all tokens alike
    assert fixed == pytest.approx(ablated, abs=0.2)


def test_places_that_some_prompts_lack_are_left_out_of_all_patchers(patcher: Patcher):
    places = patcher.recorded.places
    assert {"deciding", "last", "rest"} <= set(places)
    fewer = {name: mask for name, mask in places.items() if name != "rest"}
    lacking = replace(patcher, recorded=replace(patcher.recorded, places=fewer))
    for one in with_common_places(patcher, lacking):
        assert list(one.recorded.places) == list(fewer)


def test_a_swap_is_an_edit_of_the_whole_circuit():
    """Patches run on the compact circuit, from the layer of the node, late sites at one token."""
    planted = relay.plant()
    circuit = circuit_of(planted)
    pairs = pairs_of(circuit.document, planted.model, planted.task)
    context = ValidationContext.of(circuit, planted.model, pairs, None)
    masked_circuit, batch = context.masked_circuit, context.held_out
    others = Recorded.of(masked_circuit, context.train)
    patcher = Patcher.of(masked_circuit, batch, circuit.means, others)
    partner, before = torch.arange(2 * batch.n_pairs) ^ 1, patcher.logit_diffs
    places = patcher.recorded.places
    whole = (before + before[partner]).mean()
    changed = []
    for site, channels in masked_circuit.kept.items():
        values = patcher.recorded.values[site]
        for place in ("deciding", "last"):
            assert torch.equal(places[place], places[place][partner])
            swapped = torch.where(places[place][..., None], values[partner], values)

            def edits(part, rows, site=site, channels=channels, swapped=swapped):
                n_tokens = part.tokens.shape[1]
                return {site: lambda x: x.index_copy(-1, channels, swapped[rows, :n_tokens])}

            after = masked_circuit.logit_diffs(batch, edits)
            swap = patcher.swap({site: torch.arange(len(channels))}, place)
            assert swap.moved == pytest.approx(float((before - after).mean() / whole), abs=1e-5)
            changed += [site] if abs(swap.moved) > 0.1 else []
    assert len({site[0] for site in changed}) == 2, changed


def test_a_node_at_its_own_values_is_no_change(patcher: Patcher):
    """The donor of each prompt is the prompt itself; the pass begins at the layer of the node."""
    itself = torch.arange(2 * patcher.recorded.batch.n_pairs)
    for site, channels in patcher.recorded.channels.items():
        every = {site: torch.arange(len(channels))}
        swap = patcher._exchange(every, "deciding", itself, itself)
        assert (swap.flipped, swap.moved) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert patcher.loss_with() == patcher.loss()


class Linear:
    """A circuit of one node whose value at the last token is the logit difference.

    The value says which context it is (2 and -2) and, more loudly, something about the prompt.
    """

    transformer = SimpleNamespace(embed=SimpleNamespace(weight=torch.zeros(1)))
    kept: ClassVar = {"0.mlp.post_act": torch.tensor([0])}

    def __init__(self, n_pairs: int, noise: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.orientation = torch.tensor([1.0, -1.0]).repeat(n_pairs)
        of_pairs = torch.randn(n_pairs, generator=generator).repeat_interleave(2)
        self.node = (2 * self.orientation + noise * of_pairs)[:, None, None].expand(-1, 3, -1)

    def values(self, _batch: TokenizedPairs) -> dict[str, torch.Tensor]:
        return {"0.mlp.post_act": self.node}

    def logit_diffs(self, batch: TokenizedPairs) -> torch.Tensor:
        return self.runner()(batch, {})

    def runner(self):
        def run(_part, edits=None, start_from=None, block_inputs=None) -> torch.Tensor:
            if block_inputs is not None:
                block_inputs.append(torch.zeros(0))
            x = edits["0.mlp.post_act"](self.node) if edits else self.node
            return self.orientation * x[:, -1, 0]

        return run


@pytest.mark.parametrize(("noise", "is_specific"), [(0.0, True), (8.0, False)])
def test_the_control_sees_what_a_node_says_about_the_prompt(noise: float, is_specific: bool):
    """The donors are the same prompts in another order: a mean of signed changes would be 0."""
    n_pairs = 64
    batch = TokenizedPairs(
        torch.tensor([[5, 6, 7], [5, 8, 7]]).repeat(n_pairs, 1),
        torch.full((2 * n_pairs,), 2),
        torch.tensor([[1, 2], [2, 1]]).repeat(n_pairs, 1),
    )
    circuit: Any = Linear(n_pairs, noise)
    means = {"0.mlp.post_act": torch.zeros(1)}
    patcher = Patcher.of(circuit, batch, means, Recorded.of(circuit, batch))
    swap = patcher.swap({"0.mlp.post_act": torch.tensor([0])}, "last")
    assert swap.moved == pytest.approx(1.0)
    control = present(swap.moved_by_same)
    assert control == pytest.approx(0.0) if is_specific else control > 1.0


def test_a_circuit_that_answers_wrongly_has_nothing_to_explain():
    batch = TokenizedPairs(
        torch.tensor([[5, 6, 7], [5, 8, 7]]), torch.tensor([2, 2]), torch.tensor([[1, 2], [2, 1]])
    )
    circuit: Any = Linear(1, 0.0)
    circuit.orientation = -circuit.orientation
    with pytest.raises(InputError, match="it does not do the task"):
        Patcher.of(circuit, batch, {"0.mlp.post_act": torch.zeros(1)}, Recorded.of(circuit, batch))


def test_nodes_that_the_tokens_so_far_predict_can_be_set_to_the_prediction(patcher: Patcher):
    """Read at one token, the quote closer's input follows from it; swapped predictions break it."""
    node = {"0.attn.act_in": torch.tensor([0])}
    assert patcher.loss_by_past(node) == pytest.approx(patcher.loss(), abs=0.01)
    partner = torch.arange(len(patcher.logit_diffs)) ^ 1
    swapped = patcher.past.predicted("0.attn.act_in", patcher.recorded.batch.tokens[partner])
    assert patcher._loss_with_values(node, {"0.attn.act_in": swapped}) > patcher.loss() + 0.5
