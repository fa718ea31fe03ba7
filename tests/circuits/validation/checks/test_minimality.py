import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.validation.checks import minimality
from wirework.circuits.validation.checks.minimality import effects, without_each
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


def test_the_planted_circuit_is_minimal(wired_ablation, planted_gates, idle_gates, quotes) -> None:
    own = float(wired_ablation.losses(planted_gates[None], quotes)[0])
    found = minimality([wired_ablation], planted_gates, quotes, own + 0.02)
    assert found.circuit == pytest.approx(own)
    assert found.minimal
    assert found.n_removable == 0
    assert len(found.losses) == 5
    more = minimality([wired_ablation], idle_gates, quotes, own + 0.02)
    assert not more.minimal
    assert more.n_removable == 1
    assert more.losses[-1] == pytest.approx(own, abs=1e-6)


def test_losses_are_those_one_at_a_time(
    ablation: Ablation, some_gates, rows: TokenizedPairs
) -> None:
    found = minimality([ablation], some_gates, rows, 0.0)
    for place, unit in list(enumerate(some_gates.nonzero().flatten().tolist()))[::7]:
        less = some_gates.clone()
        less[unit] = 0
        loss = float(ablation.losses(less[None], rows)[0])
        assert found.losses[place] == pytest.approx(loss, abs=1e-6)
    assert found.minimal is None  # it does not reach the target itself


def test_masks_without_each_and_their_effects(ablation: Ablation, rows: TokenizedPairs) -> None:
    gates = torch.tensor([1.0, 0, 1, 1])
    assert without_each(gates, torch.tensor([0, 3])).tolist() == [[0, 0, 1, 1], [1, 0, 1, 0]]
    assert gates.tolist() == [1, 0, 1, 1]
    everything = torch.ones(1, ablation.space.size)
    nothing = torch.zeros(1, ablation.space.size)
    found = effects(ablation, everything, torch.cat([everything, nothing]), rows)
    logit_diffs = [
        ablation.all_logit_diffs(mask, rows)[0].double() for mask in (everything, nothing)
    ]
    assert found[0] == 0
    assert float(found[1]) == pytest.approx(
        float((logit_diffs[0] - logit_diffs[1]).abs().mean()), abs=1e-5
    )


def test_no_number_is_an_error(
    wired_ablation: Ablation, planted_gates, quotes: TokenizedPairs
) -> None:
    nans = {name: torch.full_like(mean, torch.nan) for name, mean in wired_ablation.means.items()}
    sick = Ablation.of(wired_ablation.transformer, nans)
    with pytest.raises(InputError, match="the circuit's loss is nan"):
        minimality([sick], planted_gates, quotes, 0.1)
