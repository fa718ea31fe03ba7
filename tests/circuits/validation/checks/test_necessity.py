import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation
from wirework.circuits.validation.checks import necessity
from wirework.circuits.validation.checks.necessity import (
    changed_by_ablation,
    counts_of,
    without_first,
)
from wirework.errors import InputError
from wirework.tasks import TokenizedPairs


def test_counts_go_from_none_to_all_by_hand() -> None:
    assert counts_of(0) == [0]
    assert counts_of(3) == [0, 1, 2, 3]
    assert counts_of(9, most=4) == [0, 3, 6, 9]
    many = counts_of(1000)
    assert (len(many), many[0], many[-1]) == (32, 0, 1000)
    assert many == sorted(set(many))


def all_vary(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.bool)


def test_the_first_nodes_of_the_order_are_ablated_by_hand() -> None:
    masks = without_first(torch.tensor([3, 0]), [0, 1, 2], 5)
    assert masks.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 1], [0, 1, 1, 0, 1]]


def test_nodes_are_changed_where_a_token_of_a_prompt_differs_from_the_mean(
    wired_ablation: Ablation, quotes: TokenizedPairs
) -> None:
    changed = changed_by_ablation(wired_ablation, quotes)
    assert changed.shape == (wired_ablation.space.size,)
    sites = list(wired_ablation.space.widths)
    with torch.no_grad():
        _, values = wired_ablation.transformer.record(quotes.tokens, sites)
    for node, (site, channel) in enumerate(wired_ablation.space.locate(torch.arange(len(changed)))):
        mean = float(wired_ablation.means[site][channel])
        gaps = [
            abs(float(value) - mean)
            for row, last in zip(values[site], quotes.last_positions.tolist(), strict=True)
            for value in row[: last + 1, channel]
        ]
        assert bool(changed[node]) == (max(gaps) > 1e-4 * abs(mean) + 1e-7), (site, channel)
    assert 0 < int(changed.sum()) < len(changed)


class TestNecessity:
    def test_losses_are_those_of_the_model_without_the_first_nodes(
        self, wired_ablation: Ablation, planted_gates: torch.Tensor, quotes: TokenizedPairs
    ) -> None:
        nodes = planted_gates.nonzero().flatten()
        importance = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.0])
        size = wired_ablation.space.size
        found = necessity(
            wired_ablation, nodes, importance, all_vary(size), quotes, order="by hand"
        )
        assert found.n_ablated == (0, 1, 2, 3, 4, 5)
        assert len(NODES) == 5
        ranked = nodes[[3, 1, 2, 0, 4]]  # ties in node order
        for count, loss in zip(found.n_ablated, found.circuit, strict=True):
            mask = torch.ones(size)
            for node in ranked[:count].tolist():
                mask[node] = 0
            assert loss == pytest.approx(float(wired_ablation.losses(mask[None], quotes)[0]))
        whole = 1 - planted_gates
        without = float(wired_ablation.losses(whole[None], quotes)[0])
        assert found.circuit[-1] == pytest.approx(without)
        assert found.circuit[-1] > 0.6 > 0.1 > found.circuit[0]

    def test_random_nodes_are_outside_the_circuit_and_harmless_here(
        self, wired_ablation: Ablation, planted_gates: torch.Tensor, quotes: TokenizedPairs
    ) -> None:
        seen = []

        class Recording:
            def losses(self, gates: torch.Tensor, batch: TokenizedPairs) -> torch.Tensor:
                seen.append(gates)
                return wired_ablation.losses(gates, batch)

            def all_logit_diffs(self, gates: torch.Tensor, batch: TokenizedPairs) -> torch.Tensor:
                return wired_ablation.all_logit_diffs(gates, batch)

        nodes = planted_gates.nonzero().flatten()
        size = wired_ablation.space.size
        found = necessity(Recording(), nodes, torch.arange(5.0), all_vary(size), quotes, order="")
        *random, _ = seen
        assert found.n_draws == len(random) == 4
        for masks in random:
            assert (1 - masks).sum(1).tolist() == [0, 1, 2, 3, 4, 5]
            assert bool((masks[:, nodes] == 1).all())
        assert len({tuple(masks[-1].tolist()) for masks in random}) == 4
        assert found.random[0] == pytest.approx(found.circuit[0])
        for mean, highest in zip(found.random, found.random_highest, strict=True):
            assert mean is not None
            assert highest is not None
            assert mean <= highest + 1e-9 < 0.3

    def test_where_too_few_nodes_are_outside_there_is_no_random_loss(
        self, wired_ablation: Ablation, quotes: TokenizedPairs
    ) -> None:
        size = wired_ablation.space.size
        most = torch.arange(size - 3)
        found = necessity(
            wired_ablation, most, torch.zeros(size - 3), all_vary(size), quotes, order=""
        )
        assert len(found.n_ablated) == len(found.random) == len(found.circuit) == 32
        assert found.random[0] is not None
        assert found.random[1:] == found.random_highest[1:] == (None,) * 31

    def test_constant_nodes_are_not_drawn(
        self, wired_ablation: Ablation, planted_gates: torch.Tensor, quotes: TokenizedPairs
    ) -> None:
        nodes, changed = planted_gates.nonzero().flatten(), planted_gates.bool().clone()
        outside = (~changed).nonzero().flatten()[:2]
        changed[outside] = True
        seen = []

        class Recording:
            def losses(self, gates: torch.Tensor, batch: TokenizedPairs) -> torch.Tensor:
                seen.append(gates)
                return wired_ablation.losses(gates, batch)

        found = necessity(Recording(), nodes, torch.arange(5.0), changed, quotes, order="")
        assert len(nodes) == 5
        assert found.random[3:] == (None, None, None)
        for masks in seen[:4]:
            assert set((masks[-1] == 0).nonzero().flatten().tolist()) == set(outside.tolist())

    def test_an_empty_circuit_is_an_error(
        self, wired_ablation: Ablation, quotes: TokenizedPairs
    ) -> None:
        changed = all_vary(wired_ablation.space.size)
        with pytest.raises(InputError, match="no node to ablate"):
            necessity(wired_ablation, torch.arange(0), torch.zeros(0), changed, quotes, order="")
