from dataclasses import replace

import pytest
import torch

from wirework.circuits import Ablation
from wirework.circuits.masking.activation_cache import activation_cache, activation_cache_of
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.validation.checks import MaskedCircuit, resample_ablation
from wirework.model import Model
from wirework.nn import ResampleAblation
from wirework.tasks import TokenizedPairs


@pytest.fixture(scope="module")
def drawn(ablation: Ablation, rows: TokenizedPairs) -> Ablation:
    return replace(
        ablation, activation_cache=activation_cache(ablation.transformer, [rows.tokens], 200)
    )


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestResampleAblation:
    def test_kept_nodes_pass_and_removed_ones_take_one_token_s_values(self) -> None:
        values = torch.arange(12.0).view(4, 3)
        x = torch.randn(2, 5, 3)
        gates = torch.tensor([1.0, 0.0, 0.0])
        changed = ResampleAblation(gates, values, generator())(x)
        assert torch.equal(changed[..., 0], x[..., 0])
        assert {tuple(pair) for pair in changed[..., 1:].flatten(0, 1).tolist()} <= {
            (1, 2), (4, 5), (7, 8), (10, 11)
        }  # fmt: skip
        assert len(changed[..., 1].unique()) > 1

    def test_masks_in_one_pass_draw_the_same(self) -> None:
        values, x = torch.randn(9, 3), torch.randn(2, 5, 3)
        both = ResampleAblation(torch.tensor([[1.0, 0, 0], [0, 0, 0]]), values, generator())
        changed = both(torch.cat([x, x]))
        assert torch.equal(changed[:2, :, 1:], changed[2:, :, 1:])


class TestDraws:
    def test_a_draw_can_be_made_again_and_another_is_other(
        self, drawn: Ablation, rows: TokenizedPairs
    ) -> None:
        gates = torch.ones(1, drawn.size)
        gates[0, ::3] = 0
        first = drawn.logit_diffs(gates, rows)
        assert torch.equal(first, drawn.logit_diffs(gates, rows))
        assert not torch.equal(first, replace(drawn, draw=1).logit_diffs(gates, rows))

    def test_all_nodes_kept_is_the_model(self, drawn: Ablation, rows: TokenizedPairs) -> None:
        gates = torch.ones(1, drawn.size)
        plain = replace(drawn, activation_cache=None)
        found, wanted = drawn.logit_diffs(gates, rows), plain.logit_diffs(gates, rows)
        assert torch.allclose(found, wanted, atol=1e-5)

    def test_a_target_must_be_met_both_ways(self, drawn: Ablation, rows: TokenizedPairs) -> None:
        gates = torch.ones(drawn.size)
        gates[::3] = 0
        resampled, plain = drawn.ablation_modes()
        losses = [float(view.losses(gates[None], rows)) for view in (plain, resampled)]
        low, high = sorted(losses)
        assert high > low + 1e-3
        for masks in (drawn, EdgeMasks.of(drawn, gates)):
            every = gates if masks is drawn else torch.ones(masks.size)
            assert not masks.within(every, rows, (low + high) / 2)
        assert drawn.within(gates, rows, high + 1e-3)

    def test_a_target_must_be_met_in_each_draw(self, drawn: Ablation, rows: TokenizedPairs) -> None:
        gates = torch.ones(drawn.size)
        gates[::3] = 0
        three = replace(drawn, n_resamples=3)
        losses = [float(view.losses(gates[None], rows)) for view in three.ablation_modes()]
        assert len(set(losses)) == 4
        assert three.within(gates, rows, max(losses) + 1e-3)
        assert not three.within(gates, rows, max(losses) - 1e-3)

    def test_its_draws_are_like_those_of_the_check(
        self, drawn: Ablation, rows: TokenizedPairs
    ) -> None:
        gates = torch.ones(drawn.size)
        gates[: drawn.size // 2] = 0
        assert drawn.activation_cache is not None
        subject = MaskedCircuit.of(replace(drawn, activation_cache=None), gates)
        checked = resample_ablation(subject, rows, drawn.activation_cache, n_resamples=12)
        ours = [float(replace(drawn, draw=i).losses(gates[None], rows)) for i in range(12)]
        spread = torch.tensor(checked.losses).std() + torch.tensor(ours).std()
        assert abs(sum(ours) / 12 - checked.mean) < spread


def test_the_bank_of_a_model(random_model: Model, corpus) -> None:
    values = activation_cache_of(random_model, corpus)
    assert {len(site) for site in values.values()} == {1024}
    assert not torch.equal(
        values["0.attn.q"], activation_cache_of(random_model, corpus, seed=1)["0.attn.q"]
    )
