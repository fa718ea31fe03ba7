"""The adversary on models whose worst values are known, and what it must never do."""

from copy import deepcopy
from itertools import product

import pytest
import torch
from hand_wired.edge_masks import link_

from wirework.circuits import Ablation, EdgeMasks, node_means
from wirework.circuits.masking.activation_cache import ActivationCache, activation_cache
from wirework.circuits.masking.ascent import ascend, logit_diffs, losses_and_gradient
from wirework.circuits.masking.value_range import value_range
from wirework.circuits.validation.checks import (
    AdversarialAblation,
    MaskedCircuit,
    adversarial_ablation,
    constant_resample_ablation,
)
from wirework.circuits.validation.checks.adversarial_ablation import SHARES
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs
from wirework.tasks.task_loss import pair_losses

UNREAD = [("1.attn.act_in", 6), ("1.attn.act_in", 7), ("1.mlp.act_in", 6), ("1.mlp.act_in", 7)]
"""Nodes of the hand-wired model that vary over tokens and that no weight reads."""

CANCELLING = [("0.mlp.post_act", 3), ("0.mlp.post_act", 4)]
"""Neurons of `cancelling` that are equal at every token and write with opposite signs."""


@pytest.fixture(scope="module")
def cache(ablation: Ablation, rows: TokenizedPairs) -> ActivationCache:
    return activation_cache(ablation.transformer, [rows.tokens], 200)


@pytest.fixture(scope="module")
def wired_cache(wired: Model, quotes: TokenizedPairs) -> ActivationCache:
    return activation_cache(wired.transformer, [quotes.tokens], 200)


def without(ablation: Ablation, nodes: list[tuple[str, int]]) -> MaskedCircuit:
    """All nodes but some."""
    gates = torch.ones(ablation.space.size)
    for site, channel in nodes:
        ablation.space.split(gates)[site][channel] = 0
    return MaskedCircuit.of(ablation, gates)


@pytest.fixture(scope="module")
def cancelling(wired: Model, task: Task, quotes: TokenizedPairs) -> MaskedCircuit:
    """The circuit without two neurons that move the answer unless they are equal, as always."""
    model = Model(deepcopy(wired.transformer), wired.tokenizer)
    for (site, neuron), sign in zip(CANCELLING, (1, -1), strict=True):
        link_(model, ("0.mlp.act_in", 4), (site, neuron), 2.0)
        link_(model, (site, neuron), ("0.mlp.resid_delta", 2), 2.0 * sign)
    means = node_means(model.transformer, [quotes.tokens])
    return without(Ablation.of(model.transformer, means), CANCELLING)


def attacked(
    masked_circuit: MaskedCircuit,
    ablation: Ablation,
    batch: TokenizedPairs,
    cache: ActivationCache,
    **settings: int,
) -> AdversarialAblation:
    return adversarial_ablation(masked_circuit, batch, cache, ablation.means, 0.4, **settings)


class TestAscent:
    def test_no_result_is_below_the_means_or_the_worst_draw(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        drawn = constant_resample_ablation(some, rows, cache, n_resamples=4).worst
        for steps in (0, 1, 6):
            found = attacked(some, ablation, rows, cache, steps=steps, n_draws=4)
            assert found.means == pytest.approx(some.loss(rows), abs=1e-5)
            assert found.worst_draw == pytest.approx(drawn, abs=1e-5)
            assert found.per_prompt >= found.per_node >= max(found.means, found.worst_draw)
        assert found.per_prompt > found.per_node > found.worst_draw + 0.1

    def test_values_stay_in_the_range_of_the_cache(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        bounds = value_range(ablation.space, cache, ablation.means)
        means = ablation.space.join(ablation.means)
        every = torch.cat([ablation.space.join(cache), means[None]])
        assert torch.equal(bounds.low, every.min(0).values)
        assert torch.equal(bounds.high, every.max(0).values)
        for start in (means[None], means.expand(len(rows.last_positions), -1)):
            found = ascend(some, rows, bounds, [start], steps=20)
            assert found.shape == start.shape
            assert ((bounds.low <= found) & (found <= bounds.high)).all()
            assert ((found == bounds.low) | (found == bounds.high))[found != start].any()

    def test_the_gradient_is_that_of_small_changes(
        self, wired_ablation: Ablation, planted_gates: torch.Tensor, quotes: TokenizedPairs
    ) -> None:
        exact = Ablation.of(deepcopy(wired_ablation.transformer).double(), wired_ablation.means)
        planted = MaskedCircuit.of(exact, planted_gates)
        values = exact.space.join(exact.means)[None]
        losses, gradient = losses_and_gradient(planted, quotes, values)
        assert float(losses[0]) == pytest.approx(planted.loss(quotes), abs=1e-12)
        assert (gradient[0, planted_gates != 0] == 0).all()
        for node in [0, *gradient[0].abs().topk(5).indices.tolist()]:
            change = torch.zeros_like(values)
            change[0, node] = 1e-5
            up, down = (
                losses_and_gradient(planted, quotes, values + sign * change)[0] for sign in (1, -1)
            )
            slope = float(up - down) / 2e-5 * len(quotes.last_positions)
            assert float(gradient[0, node]) == pytest.approx(slope, abs=1e-6)

    def test_prompts_with_values_of_their_own_are_independent(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        bounds = value_range(ablation.space, cache, ablation.means)
        start = ablation.space.join(ablation.means)
        together = ascend(some, rows, bounds, [start.expand(24, -1)], steps=3)
        alone = ascend(some, rows.select(torch.tensor([5])), bounds, [start.expand(2, -1)], steps=3)
        found = logit_diffs(some, rows, together)[10:12]
        expected = logit_diffs(some, rows.select(torch.tensor([5])), alone)
        assert torch.allclose(found, expected, atol=1e-4)


class TestAdversarialAblation:
    def test_it_finds_the_corner_that_hides_behind_means_and_draws(
        self, cancelling: MaskedCircuit, quotes: TokenizedPairs
    ) -> None:
        transformer, space = cancelling.transformer, cancelling.space
        means = node_means(transformer, [quotes.tokens])
        cache = activation_cache(transformer, [quotes.tokens], 200)
        found = adversarial_ablation(cancelling, quotes, cache, means, 0.4)
        assert found.n_draws == 16
        assert found.worst_draw == pytest.approx(found.means, abs=1e-3)
        assert found.per_node > found.worst_draw + 0.5
        assert found.survives is False

        bounds, at = value_range(space, cache, means), space.gates({"0.mlp.post_act": [3, 4]}) > 0
        mean = space.join(means)

        def corner_losses(share: float) -> torch.Tensor:
            """Losses (4, 2P) with both neurons at the ends of a share of their range."""
            ends = torch.lerp(mean[at], torch.stack(bounds)[:, at], share)
            by_corner = []
            for first, second in product(range(2), repeat=2):
                values = mean.clone()
                values[at] = torch.stack([ends[first, 0], ends[second, 1]])
                by_corner.append(pair_losses(logit_diffs(cancelling, quotes, values).double()))
            return torch.stack(by_corner)

        losses = corner_losses(1.0)
        assert found.per_node == pytest.approx(float(losses.mean(1).max()), abs=0.01)
        assert found.per_prompt == pytest.approx(float(losses.amax(0).mean()), abs=0.01)
        worst = {share: float(corner_losses(share).mean(1).max()) for share in SHARES}
        assert worst[SHARES[0]] < 0.4 < worst[SHARES[-1]]
        assert found.survived_share == max(share for share in SHARES if worst[share] <= 0.4)

    def test_where_nothing_outside_is_read_the_loss_stays(
        self, wired_ablation: Ablation, quotes: TokenizedPairs, wired_cache
    ) -> None:
        circuit = without(wired_ablation, UNREAD)
        bounds = value_range(wired_ablation.space, wired_cache, wired_ablation.means)
        outside = circuit.gates == 0
        assert (bounds.high > bounds.low)[outside].all()
        found = attacked(circuit, wired_ablation, quotes, wired_cache, steps=5)
        own = circuit.loss(quotes)
        losses = (found.means, found.worst_draw, found.per_node, found.per_prompt)
        assert losses == pytest.approx((own,) * 4, abs=1e-6)
        assert found.survives is True
        assert found.survived_share == 1.0
        assert (found.n_pairs, found.steps, found.n_draws, found.limit) == (16, 5, 16, 0.4)

    def test_nothing_removed_nothing_found(
        self, everything: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        found = attacked(everything, ablation, rows, cache, steps=2)
        assert found.per_prompt == found.means == everything.loss(rows)

    def test_removed_edges_stay_at_the_mean_of_their_source(
        self, wired_ablation: Ablation, planted_gates: torch.Tensor, quotes, wired_cache
    ) -> None:
        edge_masks = EdgeMasks.of(wired_ablation, planted_gates)
        gates = torch.ones(edge_masks.size)
        gates[-1] = 0  # the value no longer reaches the answer
        masked_circuit = MaskedCircuit(
            edge_masks.transformer,
            wired_ablation.space,
            planted_gates,
            lambda: edge_masks.applied(gates[None]),
        )
        found = attacked(masked_circuit, wired_ablation, quotes, wired_cache, steps=0)
        expected = float(edge_masks.losses(gates[None], quotes)[0])
        assert found.means == pytest.approx(expected, abs=1e-5)
        assert found.means > 0.6

    def test_weights_are_left_alone(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        frozen, *others = some.transformer.parameters()
        before = [weight.detach().clone() for weight in (frozen, *others)]
        frozen.requires_grad_(False)
        try:
            attacked(some, ablation, rows, cache, steps=2, n_draws=2)
            assert not frozen.requires_grad
        finally:
            frozen.requires_grad_(True)
        assert all(weight.requires_grad for weight in others)
        assert all(weight.grad is None for weight in some.transformer.parameters())
        assert all(map(torch.equal, before, (frozen, *others)))
        assert not any(site.edits for site in some.transformer.sites.values())

    def test_the_same_seed_gives_the_same_losses(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache
    ) -> None:
        first, again, other = (
            attacked(some, ablation, rows, cache, steps=2, n_draws=2, seed=seed)
            for seed in (3, 3, 4)
        )
        assert first == again
        assert first.worst_draw != other.worst_draw

    def test_bad_requests_are_one_line(
        self, some: MaskedCircuit, ablation: Ablation, rows: TokenizedPairs, cache, wired_cache
    ) -> None:
        with pytest.raises(InputError, match="at least one draw, got 0"):
            attacked(some, ablation, rows, cache, n_draws=0)
        with pytest.raises(InputError, match="0 steps or more, got -1"):
            attacked(some, ablation, rows, cache, steps=-1)
        with pytest.raises(InputError, match=r"20 channels at 0.attn.act_in, got None"):
            attacked(some, ablation, rows, {})
        with pytest.raises(InputError, match=r"20 channels at 0.attn.act_in, got \(200, 8\)"):
            attacked(some, ablation, rows, wired_cache)

    def test_a_loss_that_is_no_number_is_one_line(
        self, planted: MaskedCircuit, wired_ablation: Ablation, quotes, wired_cache
    ) -> None:
        spoiled = {name: values.clone() for name, values in wired_cache.items()}
        spoiled["1.mlp.resid_delta"][:] = torch.nan
        with pytest.raises(InputError, match="a task loss is nan"):
            attacked(planted, wired_ablation, quotes, spoiled, steps=1)
