import pytest
import torch

from wirework.circuits import Ablation, find_edges
from wirework.circuits.validation.checks import (
    minimality_test,
    random_effects,
    random_paths,
    random_units,
    unit_effects,
)
from wirework.model import Model
from wirework.tasks import TokenizedPairs


def test_unit_effects_are_those_one_at_a_time(ablation: Ablation, some_gates, rows) -> None:
    found = unit_effects(ablation, some_gates, rows)
    own = ablation.all_logit_diffs(some_gates[None], rows)[0]
    units = some_gates.nonzero().flatten().tolist()
    assert len(found) == len(units)
    for place, unit in list(enumerate(units))[::11]:
        less = some_gates.clone()
        less[unit] = 0
        moved = ablation.all_logit_diffs(less[None], rows)[0] - own
        assert found[place] == pytest.approx(float(moved.abs().mean()), abs=1e-5)


def test_paths_follow_weights_through_one_sublayer(
    random_model: Model, ablation, some_gates
) -> None:
    space, transformer = ablation.space, random_model.transformer
    edges = find_edges(transformer, space.locate(torch.arange(space.size)))
    joined = {(edge.source, edge.target) for edge in edges}
    draw = random_paths(transformer, torch.zeros(space.size))
    generator = torch.Generator().manual_seed(0)
    kinds = set()
    for _ in range(50):
        read, middle, write = draw(generator).tolist()
        assert (read, middle) in joined
        assert (middle, write) in joined
        kinds.add(tuple(site for site, _ in space.locate(torch.tensor([read, middle, write]))))
    assert ("0.attn.act_in", "0.attn.v", "0.attn.resid_delta") in kinds
    assert ("1.mlp.act_in", "1.mlp.post_act", "1.mlp.resid_delta") in kinds
    outside = random_paths(transformer, some_gates)
    for _ in range(50):
        extras = outside(generator)
        assert 1 <= len(extras) <= 3
        assert not some_gates[extras].any()
    assert len(random_paths(transformer, torch.ones(space.size))(generator)) == 0


def test_random_units_lie_outside(some_gates) -> None:
    generator = torch.Generator().manual_seed(0)
    found = random_units(some_gates, 5)(generator)
    assert len(found.unique()) == 5
    assert not some_gates[found].any()
    assert len(random_units(torch.tensor([1.0, 0, 0]), 5)(generator)) == 2


def test_a_random_effect_is_that_of_one_extra(ablation: Ablation, some_gates, rows) -> None:
    only = int((some_gates == 0).nonzero()[3])
    found = random_effects(
        ablation, some_gates, rows, lambda _: torch.tensor([only]), n_resamples=70
    )
    more = some_gates.clone()
    more[only] = 1
    logit_diffs = ablation.all_logit_diffs(torch.stack([some_gates, more]), rows)
    expected = float((logit_diffs[0] - logit_diffs[1]).abs().mean())
    assert found == pytest.approx([expected] * 70, abs=1e-5)
    nothing = random_effects(
        ablation, some_gates, rows, lambda _: torch.empty(0).long(), n_resamples=3
    )
    assert nothing == []


def test_the_planted_circuit_passes_and_an_idle_node_does_not(
    wired: Model, wired_ablation: Ablation, planted_gates, idle_gates, quotes: TokenizedPairs
) -> None:
    results = []
    for gates in (planted_gates, idle_gates):
        extras = random_paths(wired.transformer, gates)
        n_resamples = random_effects(wired_ablation, gates, quotes, extras, n_resamples=60)
        assert n_resamples == random_effects(wired_ablation, gates, quotes, extras, n_resamples=60)
        assert len(n_resamples) == 60
        results.append(minimality_test(unit_effects(wired_ablation, gates, quotes), n_resamples))
    assert results[0].p_value > 0.05
    assert results[1].p_value < 1e-6
    assert results[1].p_values[-1] == min(results[1].p_values)
