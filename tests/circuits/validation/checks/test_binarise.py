from collections.abc import Mapping

import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.validation.checks import MaskedCircuit, binarise
from wirework.circuits.validation.checks.binarise import _edits, losses_alone
from wirework.circuits.validation.checks.binary_thresholds import BinaryThresholds, best_start
from wirework.circuits.validation.checks.masked_circuit import Edits, of_channels
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


def prompt_values(masked_circuit: MaskedCircuit, rows: TokenizedPairs) -> torch.Tensor:
    inside = torch.arange(rows.tokens.shape[1]) <= rows.last_positions[:, None]
    return torch.cat(list(masked_circuit.values(rows).values()), -1)[inside].double()


def site_edits(kept: Mapping[str, torch.Tensor], levels: BinaryThresholds, t: float) -> Edits:
    """The edits of kept nodes, as edits of whole sites."""
    edits = _edits(kept, levels, t)
    return {name: of_channels(kept[name], edit) for name, edit in edits.items()}


class TestBinarise:
    def test_the_planted_circuit_keeps_its_loss(
        self, planted: MaskedCircuit, quotes: TokenizedPairs, task, wired
    ) -> None:
        judge = task.take(task.pairs[16:32]).encode(wired.tokenizer, 80)
        found = binarise(planted, quotes, judge, steps=60)
        assert found.circuit == pytest.approx(planted.loss(judge))
        assert found.loss < found.circuit + 0.05
        assert found.loss < found.start
        assert len(found.alone) == 5
        assert found.n_keep == sum(loss <= found.circuit + 0.01 for loss in found.alone)

    def test_batches_are_drawn_by_seed(self, some: MaskedCircuit, rows: TokenizedPairs) -> None:
        few = [
            binarise(some, rows, rows.select(torch.arange(2)), steps=3, batch_pairs=3, seed=seed)
            for seed in (1, 1, 2)
        ]
        assert few[0] == few[1] != few[2]

    def test_no_steps_leave_the_start_and_no_nodes_are_an_error(
        self, planted: MaskedCircuit, wired_ablation: Ablation, quotes: TokenizedPairs
    ) -> None:
        found = binarise(planted, quotes, quotes, steps=0)
        assert found.loss == found.start
        weight = planted.transformer.unembed.weight
        assert weight.requires_grad
        assert weight.grad is None
        nothing = MaskedCircuit.of(wired_ablation, torch.zeros(wired_ablation.space.size))
        with pytest.raises(InputError, match="no node to binarise"):
            binarise(nothing, quotes, quotes)


class TestBestStart:
    def test_the_start_is_the_best_of_three_thresholds(
        self, some: MaskedCircuit, rows: TokenizedPairs
    ) -> None:
        found = best_start(some, rows)
        for node, column in enumerate(prompt_values(some, rows).T):
            low, high = column.min(), column.max()
            if high - low < 1e-9:
                assert (
                    float(found.low[node]) == float(found.high[node]) == pytest.approx(float(low))
                )
                continue
            errors = []
            for share in (0.25, 0.5, 0.75):
                above = column > low + share * (high - low)
                sides = (column[~above], column[above])
                errors.append(
                    (sum(float((s - s.mean()).square().sum()) for s in sides), share, sides)
                )
            _, share, sides = min(errors, key=lambda error: error[0])
            assert float(found.threshold[node]) == pytest.approx(
                float(low + share * (high - low)), abs=1e-5
            )
            assert float(found.low[node]) == pytest.approx(float(sides[0].mean()), abs=1e-5)
            assert float(found.high[node]) == pytest.approx(float(sides[1].mean()), abs=1e-5)

    def test_padding_does_not_count(self, some: MaskedCircuit, rows: TokenizedPairs) -> None:
        few = rows.select(torch.arange(4))
        wider = torch.nn.functional.pad(few.tokens, (0, 20), value=511)
        padded = TokenizedPairs(wider, few.last_positions, few.answers)
        padded.select(torch.arange(4))
        found, again = best_start(some, few), best_start(some, padded)
        assert torch.equal(found.low, again.low)
        short, long = (rows.last_positions.view(-1, 2).amax(1).sort().indices[[0, -1]]).tolist()
        both = rows.select(torch.tensor([short, long]))
        inside = prompt_values(some, both)
        low = best_start(some, both).low.double()
        assert (low >= inside.amin(0) - 1e-5).all()

    def test_a_constant_node_keeps_its_value(
        self, everything: MaskedCircuit, rows: TokenizedPairs
    ) -> None:
        one = rows.select(torch.tensor([0]))
        first = TokenizedPairs(one.tokens[:, :1].repeat(1, 2), torch.tensor([1, 1]), one.answers)
        levels = best_start(everything, first)
        values = prompt_values(everything, first)
        flat = values.amax(0) - values.amin(0) <= 1e-6 * values.abs().amax(0)
        assert flat.any()
        assert torch.equal(levels.low[flat], levels.high[flat])
        assert torch.allclose(levels.low[flat].double(), values[0, flat], atol=1e-6)
        assert levels.low.isfinite().all()


def test_the_blend_goes_from_identity_to_the_step(
    some: MaskedCircuit, rows: TokenizedPairs
) -> None:
    kept = {"0.mlp.post_act": torch.tensor([1, 3])}
    levels = BinaryThresholds(
        torch.tensor([0.5, 2.0]), torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 2.0])
    )
    x = torch.tensor([[[9.0, 0.4, 9.0, 3.0]], [[9.0, 0.6, 9.0, 2.0]]])
    (step,) = site_edits(kept, levels, 0.0).values()
    assert step(x).tolist() == [[[9.0, -1.0, 9.0, 2.0]], [[9.0, 1.0, 9.0, -2.0]]]
    (half,) = site_edits(kept, levels, 0.5).values()
    assert torch.allclose(half(x)[0, 0], torch.tensor([9.0, -0.3, 9.0, 2.5]))
    edits = site_edits(some.kept, best_start(some, rows), 1.0)
    assert torch.allclose(some.logit_diffs(rows, edits), some.logit_diffs(rows), atol=1e-5)


def test_nodes_alone_are_those_one_at_a_time(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    levels = best_start(some, rows)
    found = losses_alone(some, rows, levels)
    nodes = [(name, channel) for name, some in some.kept.items() for channel in some]
    assert len(found) == len(nodes)
    for i in range(0, len(nodes), 9):
        name, channel = nodes[i]
        one = BinaryThresholds(
            *(part[i : i + 1] for part in (levels.threshold, levels.low, levels.high))
        )
        edits = site_edits({name: channel[None]}, one, 0.0)
        assert found[i] == pytest.approx(some.loss(rows, edits), abs=1e-5)
