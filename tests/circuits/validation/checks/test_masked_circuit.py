import copy
from contextlib import contextmanager

import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.masking.activation_cache import activation_cache
from wirework.circuits.validation.checks import (
    MaskedCircuit,
    agreement,
    binarise,
    constant_resample_ablation,
    interchange,
    resample_ablation,
)
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs, differences


def test_all_nodes_are_the_model(everything: MaskedCircuit, rows: TokenizedPairs) -> None:
    expected = differences(everything.transformer, rows)
    assert torch.allclose(everything.logit_diffs(rows), expected, atol=1e-6)


def test_gaps_and_loss_are_those_of_the_mask(
    some: MaskedCircuit, some_gates: torch.Tensor, ablation: Ablation, rows: TokenizedPairs
) -> None:
    expected = ablation.all_logit_diffs(some_gates[None], rows)[0]
    assert torch.allclose(some.logit_diffs(rows), expected, atol=1e-6)
    loss = float(ablation.losses(some_gates[None], rows)[0])
    assert some.loss(rows) == pytest.approx(loss, abs=1e-6)


def test_edits_meet_the_rows_they_are_for(some: MaskedCircuit, rows: TokenizedPairs) -> None:
    seen = []

    def edits(part: TokenizedPairs, places: torch.Tensor):
        assert torch.equal(part.answers, rows.answers[places])
        seen.extend(places.tolist())
        shift = places.float()[:, None, None] / 100
        return {"1.mlp.resid_delta": lambda x: x + shift}

    moved = some.logit_diffs(rows, edits)
    assert sorted(seen) == list(range(len(rows.last_positions)))
    assert not torch.allclose(moved, some.logit_diffs(rows))


def test_values_are_the_kept_nodes_inside_the_circuit(
    some: MaskedCircuit, rows: TokenizedPairs
) -> None:
    transformer = some.transformer
    with some.on(), transformer.recorded(transformer.node_sites) as expected:
        transformer.state(rows.tokens)
    found = some.values(rows)
    assert list(found) == list(some.kept)
    for name, channels in some.kept.items():
        assert torch.equal(found[name], expected[name][..., channels])


def test_checks_run_on_a_circuit_that_lacks_edges(
    ablation: Ablation, some_gates: torch.Tensor, rows: TokenizedPairs
) -> None:
    """Whatever `on` does: here it takes half of the MLP's weights out beside the ablation."""
    transformer, few = ablation.transformer, rows.select(torch.arange(4))
    weight = transformer.blocks[0].mlp.up.weight.data

    @contextmanager
    def on():
        before = weight.clone()
        weight[::2] = 0
        try:
            with transformer.edited(ablation.edits(some_gates)):
                yield
        finally:
            weight.copy_(before)

    cut = MaskedCircuit(transformer, ablation.space, some_gates, on)
    with on():
        expected = ablation.all_logit_diffs(some_gates[None], few)[0]
    assert torch.allclose(cut.logit_diffs(few), expected, atol=1e-6)
    assert not torch.allclose(
        cut.logit_diffs(few), MaskedCircuit.of(ablation, some_gates).logit_diffs(few)
    )
    held = activation_cache(transformer, [few.tokens], 8)
    own = cut.loss(few)
    assert binarise(cut, few, few, steps=1).circuit == own
    assert interchange(cut, few, n_resamples=1).circuit == own
    assert resample_ablation(cut, few, held, n_resamples=1).mean != own
    assert constant_resample_ablation(cut, few, held, n_resamples=1).mean != own
    assert agreement(cut, few).kl > 0


def test_what_is_not_a_number_is_an_error(ablation: Ablation, rows: TokenizedPairs) -> None:
    broken = copy.deepcopy(ablation.transformer)
    with torch.no_grad():
        broken.unembed.weight.fill_(torch.nan)
    sick = MaskedCircuit.of(Ablation.of(broken, ablation.means), torch.ones(ablation.space.size))
    with pytest.raises(InputError, match="a task loss is nan"):
        sick.loss(rows)
