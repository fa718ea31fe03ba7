"""Swaps and constant values of a circuit's nodes, against numbers that follow from its wiring."""

import pytest
import torch
from hand_wired import quote_closer
from hand_wired.circuits import circuit_of
from hand_wired.edge_masks import Planted

from wirework.circuits.held_out import pairs_of
from wirework.circuits.reading.patching import Patcher
from wirework.circuits.reading.places import Recorded
from wirework.circuits.validation.context import ValidationContext


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
    assert swap.n_prompts == 2 * patcher.recorded.n_pairs
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


def test_no_patch_is_no_change(patcher: Patcher):
    assert patcher.loss_with() == pytest.approx(patcher.loss())
