"""Masks with values of their own for each prompt, against mean ablation of one prompt at a time."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wirework.circuits import Ablation, EdgeMasks
from wirework.tasks import TokenizedPairs


def random_tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def values(ablation: Ablation, rows: TokenizedPairs) -> Tensor:
    return 0.3 * random_tensor(len(rows.tokens), ablation.space.size, seed=1)


@pytest.fixture(scope="module")
def attacked(ablation: Ablation, values: Tensor) -> Ablation:
    return ablation.with_adversary(values)


@pytest.fixture(scope="module")
def gates(ablation: Ablation) -> Tensor:
    return (random_tensor(3, ablation.size, seed=2) > 0).float()


def one_at_a_time(ablation: Ablation, gates: Tensor, rows: TokenizedPairs, values: Tensor):
    """Logit differences (R, 2P), each prompt's in a pass of its own."""
    columns = []
    for number, of_prompt in enumerate(values):
        means = {**ablation.means, **ablation.space.split(of_prompt)}
        pair = rows.select(torch.tensor([number // 2]))
        logit_diffs = replace(ablation, means=means).logit_diffs(gates, pair)
        columns.append(logit_diffs[:, number % 2])
    return torch.stack(columns, 1)


class TestPromptValues:
    def test_each_prompt_has_its_own(self, ablation, attacked, gates, rows, values) -> None:
        expected = one_at_a_time(ablation, gates, rows, values)
        assert torch.allclose(attacked.logit_diffs(gates, rows), expected, atol=1e-4)
        assert torch.allclose(attacked.all_logit_diffs(gates, rows), expected, atol=1e-4)

    def test_selected_prompts_keep_theirs(self, ablation, attacked, gates, rows, values) -> None:
        some = rows.select(torch.tensor([7, 2, 9])).select(torch.tensor([2, 1]))
        assert some.numbers.tolist() == [18, 19, 4, 5]
        expected = one_at_a_time(ablation, gates, rows, values)[:, [18, 19, 4, 5]]
        assert torch.allclose(attacked.logit_diffs(gates, some), expected, atol=1e-4)

    def test_the_increase_in_loss_is_that_of_small_changes(self, attacked, gates, rows) -> None:
        exact = replace(
            attacked.with_mean_ablation(),
            prompt_values=attacked.prompt_values,
        )
        rise = exact.loss_increase(gates[0], rows)
        gate = int(rise.abs().argmax())
        change = torch.zeros_like(gates[0])
        change[gate] = 1e-3
        up, down = (
            float(attacked.losses((gates[0] + sign * change)[None], rows)[0]) for sign in (1, -1)
        )
        slope = (down - up) / 2e-3 * len(rows.tokens)
        assert float(rise[gate]) == pytest.approx(slope, rel=0.05)

    def test_a_target_must_be_met_with_every_set_and_at_the_means(
        self, ablation, attacked, gates, rows
    ) -> None:
        both = attacked.with_adversary(2 * attacked.prompt_values)
        modes = both.ablation_modes()
        losses = [float(mode.losses(gates[:1], rows)[0]) for mode in modes]
        assert len(losses) == 3
        assert losses[0] == float(both.losses(gates[:1], rows)[0])
        assert losses[1] == float(attacked.losses(gates[:1], rows)[0])
        assert losses[2] == float(ablation.losses(gates[:1], rows)[0])
        assert both.within(gates[0], rows, max(losses) + 1e-4)
        assert not both.within(gates[0], rows, max(losses) - 1e-4)

    def test_removed_edges_stay_at_the_mean_of_their_source(
        self, ablation, attacked, gates, rows, values
    ) -> None:
        edge_masks = EdgeMasks.of(attacked, attacked.nodes(gates[0]))
        plain = EdgeMasks.of(ablation, gates[0])
        some = torch.ones(edge_masks.size)
        some[edge_masks.n_nodes :: 2] = 0
        found = edge_masks.logit_diffs(some[None], rows)[0].detach()
        for number in (0, 5, 18):
            means = {**ablation.means, **ablation.space.split(values[number])}
            kept = {site: part > 0 for site, part in ablation.space.split(gates[0]).items()}
            at_means = {
                site: torch.where(kept[site], ablation.means[site], means[site]) for site in kept
            }
            mixed = replace(plain.ablation, means={**ablation.means, **at_means})
            pair = rows.select(torch.tensor([number // 2]))
            expected = replace(plain, ablation=mixed).logit_diffs(some[None], pair)
            assert float(found[number]) == pytest.approx(
                float(expected.detach()[0, number % 2]), abs=1e-4
            )

    def test_mean_ablation_has_no_adversary(self, ablation, attacked, gates, rows) -> None:
        plain = attacked.with_mean_ablation()
        assert (plain.adversaries, plain.prompt_values, plain.value_range) == ((), None, None)
        assert torch.equal(plain.logit_diffs(gates, rows), ablation.logit_diffs(gates, rows))
