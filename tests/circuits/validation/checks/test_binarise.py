import math

import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.masking.masked_circuit import of_channels
from wirework.circuits.validation.checks import MaskedCircuit, binarise
from wirework.circuits.validation.checks.binarise import binarised_loss, losses_alone
from wirework.circuits.validation.checks.binary_thresholds import (
    BinaryValues,
    best_start,
    binarisation,
    binarising_edits,
)
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.tasks import TokenizedPairs


def prompt_values(masked_circuit: MaskedCircuit, rows: TokenizedPairs) -> torch.Tensor:
    inside = torch.arange(rows.tokens.shape[1]) <= rows.last_positions[:, None]
    return torch.cat(list(masked_circuit.values(rows).values()), -1)[inside].double()


def nodes_of(masked_circuit: MaskedCircuit) -> list[tuple[str, int]]:
    kept = masked_circuit.kept
    return [(name, int(channel)) for name, channels in kept.items() for channel in channels]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class TestBinarisation:
    low, high = torch.tensor([0.0, -3.0]), torch.tensor([2.0, 1.0])

    def test_at_one_it_is_the_identity(self) -> None:
        x = torch.tensor([[0.3, -7.0], [9.0, 0.0]])
        assert torch.equal(binarisation(x, self.low, self.high, 1.0), x)

    def test_at_zero_it_is_the_step_at_the_middle_by_hand(self) -> None:
        x = torch.tensor([[0.99, -1.01], [1.0, -1.0], [5.0, -9.0]])
        step = binarisation(x, self.low, self.high, 0.0)
        assert step.tolist() == [[0.0, -3.0], [2.0, 1.0], [2.0, -3.0]]

    @pytest.mark.parametrize("t", [0.9, 0.4, 0.05, 1e-6, 1e-12])
    def test_both_values_are_fixed_and_so_is_their_middle(self, t: float) -> None:
        for values in (self.low, self.high, (self.low + self.high) / 2):
            found = binarisation(values, self.low, self.high, t)
            assert torch.allclose(found, values, atol=1e-6)

    def test_in_between_it_is_a_mixture_with_a_scaled_sigmoid_of_temperature_t(self) -> None:
        t, x = 0.5, 2.5
        # l = 0, r = 2, middle 1, distance 2: a + b sigmoid((x - 1) / 2t), 0 at 0 and 2 at 2.
        at_low, at_high = sigmoid(-1 / (2 * t)), sigmoid(1 / (2 * t))
        step = 2 * (sigmoid((x - 1) / (2 * t)) - at_low) / (at_high - at_low)
        found = binarisation(torch.tensor([x]), self.low[:1], self.high[:1], t)
        assert float(found) == pytest.approx(t * x + (1 - t) * step)

    @pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
    def test_the_order_of_the_values_does_not_matter(self, t: float) -> None:
        x = torch.tensor([[0.7, -2.0], [1.4, 0.0]])
        swapped = binarisation(x, self.high, self.low, t)
        assert torch.equal(swapped, binarisation(x, self.low, self.high, t))

    @pytest.mark.parametrize("t", [0.0, 3e-15, 1e-12, 0.3])
    @pytest.mark.parametrize("x", [1.5, 1.4999998, -1.0])
    def test_equal_values_have_finite_gradients(self, t: float, x: float) -> None:
        low = torch.tensor([1.5], requires_grad=True)
        high = torch.tensor([1.5], requires_grad=True)
        found = binarisation(torch.tensor([x, x]), low, high, t)
        assert torch.allclose(found, torch.full((2,), 1.5 + t * (x - 1.5)), atol=1e-6)
        found.sum().backward()
        for value in (low, high):
            assert value.grad is not None
            assert bool(value.grad.isfinite().all())

    def test_edits_are_of_each_sites_own_nodes(
        self, some: MaskedCircuit, rows: TokenizedPairs
    ) -> None:
        kept = {"0.attn.v": torch.tensor([2]), "0.mlp.post_act": torch.tensor([1, 3])}
        values = BinaryValues(torch.tensor([-5.0, -1.0, -2.0]), torch.tensor([5.0, 2.0, 6.0]))
        x = torch.tensor([[[0.4, 3.0]], [[0.6, 1.0]]])
        first, second = binarising_edits(kept, values, 0.0).values()
        assert first(x[..., :1]).tolist() == [[[5.0]], [[5.0]]]
        assert second(x).tolist() == [[[-1.0, 6.0]], [[2.0, -2.0]]]
        everything = binarising_edits(some.kept, best_start(some, few(rows)), 1.0)
        edits = {name: of_channels(some.kept[name], edit) for name, edit in everything.items()}
        assert torch.allclose(some.logit_diffs(rows, edits), some.logit_diffs(rows), atol=1e-5)


def few(rows: TokenizedPairs, count: int = 2) -> TokenizedPairs:
    return rows.select(torch.arange(count))


def edits_by_hand(
    nodes: list[tuple[str, int]], values: dict[tuple[str, int], tuple[float, float]]
) -> dict[str, Edit]:
    """Edits of whole sites that binarise the given nodes, written as a plain loop."""

    def edit_of(site: str) -> Edit:
        def edit(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            for node in nodes:
                if node[0] == site and node in values:
                    low, high = values[node]
                    column = x[..., node[1]]
                    x[..., node[1]] = torch.where(column < (low + high) / 2, low, high)
            return x

        return edit

    return {site: edit_of(site) for site, _ in nodes}


class TestBestStart:
    @pytest.mark.parametrize("circuit", ["planted", "some"])
    def test_it_takes_the_candidate_of_the_lowest_task_loss_node_by_node(
        self, circuit: str, rows: TokenizedPairs, quotes: TokenizedPairs, request
    ) -> None:
        masked_circuit: MaskedCircuit = request.getfixturevalue(circuit)
        batch = quotes if circuit == "planted" else few(rows)
        found = best_start(masked_circuit, batch)
        nodes = nodes_of(masked_circuit)
        n_compared = 0
        chosen: dict[tuple[str, int], tuple[float, float]] = {}
        columns = prompt_values(masked_circuit, batch).T
        for i, (node, column) in enumerate(zip(nodes, columns, strict=True)):
            values = (float(found.low[i]), float(found.high[i]))
            low, high = float(column.min()), float(column.max())
            losses = []
            for share in (0.25, 0.5, 0.75) if high - low > 1e-5 * max(abs(high), abs(low)) else ():
                above = column > low + share * (high - low)
                candidate = (float(column[~above].mean()), float(column[above].mean()))
                edits = edits_by_hand(nodes, {**chosen, node: candidate})
                losses.append((masked_circuit.loss(batch, edits), candidate))
            if not losses:
                assert values[0] == values[1] == pytest.approx(low, abs=1e-5)
            else:
                least = min(loss for loss, _ in losses)
                own = [loss for loss, pair in losses if pair == pytest.approx(values, abs=1e-4)]
                assert own
                assert min(own) == pytest.approx(least, abs=1e-5)
                n_compared += max(loss for loss, _ in losses) > least + 1e-4
            chosen[node] = values
        assert n_compared > 0

    def test_padding_does_not_count(self, some: MaskedCircuit, rows: TokenizedPairs) -> None:
        one = few(rows)
        wider = torch.nn.functional.pad(one.tokens, (0, 20), value=511)
        padded = TokenizedPairs(wider, one.last_positions, one.answers)
        found, again = best_start(some, one), best_start(some, padded)
        assert torch.allclose(found.low, again.low, atol=1e-6)
        assert torch.allclose(found.high, again.high, atol=1e-6)

    def test_a_constant_node_keeps_its_value(
        self, everything: MaskedCircuit, rows: TokenizedPairs
    ) -> None:
        one = rows.select(torch.tensor([0]))
        first = TokenizedPairs(one.tokens[:, :1].repeat(1, 2), torch.tensor([1, 1]), one.answers)
        found = best_start(everything, first)
        values = prompt_values(everything, first)
        flat = values.amax(0) - values.amin(0) <= 1e-6 * values.abs().amax(0)
        assert flat.any()
        assert torch.equal(found.low[flat], found.high[flat])
        assert torch.allclose(found.low[flat].double(), values[0, flat], atol=1e-6)
        assert found.low.isfinite().all()


class TestBinarise:
    def test_the_planted_circuit_keeps_its_loss(
        self, planted: MaskedCircuit, quotes: TokenizedPairs, task, wired
    ) -> None:
        judge = task.take(task.pairs[16:32]).encode(wired.tokenizer, 80)
        found = binarise(planted, quotes, judge, steps=100)
        assert found.circuit == pytest.approx(planted.loss(judge))
        assert found.loss < 0.05
        assert found.loss < found.start
        assert found.train_loss < 0.05
        assert (found.n_train_pairs, found.n_pairs) == (quotes.n_pairs, 16)
        assert len(found.alone) == 5
        assert found.n_keep == sum(loss <= found.circuit + 0.01 for loss in found.alone)

    def test_batches_are_drawn_by_seed(self, some: MaskedCircuit, rows: TokenizedPairs) -> None:
        found = [
            binarise(some, few(rows, 8), few(rows), steps=3, lr=0.1, batch_pairs=3, seed=seed)
            for seed in (1, 1, 2)
        ]
        assert found[0] == found[1] != found[2]

    def test_of_several_trainings_the_best_on_training_pairs_is_kept(
        self, planted: MaskedCircuit, quotes: TokenizedPairs
    ) -> None:
        one = quotes.select(torch.arange(4))
        alone = [
            binarise(planted, quotes, one, steps=20, lr=lr, seed=seed)
            for seed, lr in ((3, 0.001), (4, 0.05))
        ]
        found = binarise(planted, quotes, one, steps=20, lr=(0.001, 0.05), seed=3)
        assert alone[0].train_loss != alone[1].train_loss
        assert found == min(alone, key=lambda binarised: binarised.train_loss)

    def test_no_training_follows_one_that_is_good_enough(
        self, planted: MaskedCircuit, quotes: TokenizedPairs
    ) -> None:
        one, rates = quotes.select(torch.arange(4)), (0.001, 0.05)
        first = binarise(planted, quotes, one, steps=20, lr=rates[0])
        both = binarise(planted, quotes, one, steps=20, lr=rates, enough=0.0)
        assert both.train_loss < first.train_loss
        assert binarise(planted, quotes, one, steps=20, lr=rates, enough=9.0) == first

    def test_no_steps_leave_the_start_and_no_nodes_are_an_error(
        self, planted: MaskedCircuit, wired_ablation: Ablation, quotes: TokenizedPairs
    ) -> None:
        found = binarise(planted, quotes, quotes, steps=0)
        assert found.loss == found.start == found.train_loss
        start = best_start(planted, quotes)
        assert found.start == pytest.approx(binarised_loss(planted, quotes, start))
        weight = planted.transformer.unembed.weight
        assert weight.requires_grad
        assert weight.grad is None
        nothing = MaskedCircuit.of(wired_ablation, torch.zeros(wired_ablation.space.size))
        with pytest.raises(InputError, match="no node to binarise"):
            binarise(nothing, quotes, quotes)


def test_nodes_alone_are_those_one_at_a_time(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    values = best_start(some, few(rows))
    found = losses_alone(some, rows, values)
    nodes = nodes_of(some)
    assert len(found) == len(nodes)
    for i in range(0, len(nodes), 9):
        edits = edits_by_hand(nodes, {nodes[i]: (float(values.low[i]), float(values.high[i]))})
        assert found[i] == pytest.approx(some.loss(rows, edits), abs=1e-5)
