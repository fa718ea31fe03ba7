import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation, clean_up, discretise, node_means
from wirework.circuits.masking.masks import Masks
from wirework.circuits.pruning.discretise import _remove_each, best_nodes, ranking, smallest_count
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs


def test_nodes_rank_by_score_then_order() -> None:
    rank = ranking(torch.tensor([0.1, 0.5, 0.1, -1.0, 0.5]))
    assert rank.tolist() == [2, 0, 3, 4, 1]
    assert best_nodes(rank, [0, 3]).tolist() == [[0] * 5, [1, 1, 0, 0, 1]]


class TestSmallestCount:
    @pytest.mark.parametrize("guess", [1, 16, 17, 60, 100])
    @pytest.mark.parametrize("answer", [1, 2, 17, 99, 100])
    def test_a_falling_loss_is_bisected_from_any_guess(self, answer: int, guess: int) -> None:
        assert smallest_count(lambda k: k >= answer, 100, guess) == answer

    def test_a_lucky_smaller_count_is_found(self) -> None:
        # Reaches the target from 64 on, misses it at 61 .. 63, reaches it at 60.
        assert smallest_count(lambda k: k >= 64 or k == 60, 100, 64) == 60


@pytest.fixture(scope="module")
def planted(wired: Model, task: Task) -> tuple[Ablation, TokenizedPairs]:
    rows = task.take(task.pairs[:12]).encode(wired.tokenizer, 80)
    means = node_means(wired.transformer, [rows.tokens])
    return Ablation.of(wired.transformer, means), rows


class TestDiscretise:
    def test_no_fewer_of_the_best_nodes_reach_the_target(self, planted) -> None:
        ablation, rows = planted
        score = torch.rand(ablation.space.size, generator=torch.Generator().manual_seed(2))
        gates = discretise(ablation, score, rows, 0.15)
        kept = int(gates.sum())
        rank = ranking(score)
        assert torch.equal(gates, best_nodes(rank, [kept])[0])
        losses = ablation.losses(best_nodes(rank, [kept, kept - 1]), rows)
        assert losses[0] <= 0.15 < losses[1]

    @pytest.mark.parametrize("guess", [160, 164, 900, None])
    def test_a_guess_that_fails_does_not_hide_what_the_masks_reach(
        self, guess: int | None, planted
    ) -> None:
        score = (torch.arange(1000) < 164).float() - 0.5
        assert int(discretise(Lucky(), score, planted[1], 0.15, guess).sum()) == 164


class Lucky(Masks):
    """Reaches the target with 164 gates alone, as masks that learned nonsense may."""

    size = 1000
    layers = applied = compact = None  # type: ignore[assignment]

    def within(self, gates: torch.Tensor, rows: TokenizedPairs, target: float) -> bool:
        return int(gates.sum()) in (164, 1000)


class TestCleanUp:
    def test_clean_up_leaves_nothing_that_can_go_alone(self, planted) -> None:
        ablation, rows = planted
        gates = clean_up(ablation, torch.ones(ablation.space.size), rows, 0.15)
        assert ablation.space.locate(gates.nonzero().flatten()) == NODES
        kept = gates.nonzero().flatten()
        singles = gates.repeat(len(kept), 1).scatter_(1, kept[:, None], 0)
        assert (ablation.losses(singles, rows) > 0.15).all()

    def test_a_target_that_chance_reaches_needs_no_node(self, planted) -> None:
        ablation, rows = planted
        assert not clean_up(ablation, torch.ones(ablation.space.size), rows, 2.0).any()

    def test_what_misses_the_target_is_left_alone(self, planted) -> None:
        ablation, rows = planted
        some = torch.ones(ablation.space.size)
        some[: ablation.space.size // 2] = 0
        assert float(ablation.losses(some[None], rows)) > 0.15
        assert torch.equal(clean_up(ablation, some, rows, 0.15), some)


class OneGoes:
    """Lets the gate go that is tried in the middle of the first round."""

    def __init__(self, n_gates: int) -> None:
        self.gates, self.tries = torch.ones(n_gates), 0

    def close(self, gate: torch.Tensor) -> bool:
        self.tries += 1
        if self.tries != len(self.gates) // 2:
            return False
        self.gates[gate] = 0
        return True


@pytest.mark.parametrize(("n_gates", "is_tried_again"), [(256, True), (300, False)])
def test_gates_are_tried_again_unless_they_are_many(n_gates: int, is_tried_again: bool) -> None:
    removal = OneGoes(n_gates)
    _remove_each(removal, torch.arange(n_gates))
    assert removal.gates.sum() == n_gates - 1
    assert (removal.tries > n_gates) == is_tried_again
