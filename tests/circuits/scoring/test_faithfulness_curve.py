"""The curve and its areas on a hand-wired model, and against areas worked by hand."""

import pytest
import torch
from hand_wired.quote_closer import NODES

from wirework.circuits import Ablation, faithfulness_curve, node_means
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, TokenizedPairs


@pytest.fixture(scope="module")
def planted(wired: Model, task: Task) -> tuple[Ablation, TokenizedPairs]:
    batch = task.take(task.pairs[:16]).encode(wired.tokenizer, wired.config.n_ctx)
    return Ablation.of(wired.transformer, node_means(wired.transformer, [batch.tokens])), batch


@pytest.fixture(scope="module")
def truth(planted: tuple[Ablation, TokenizedPairs]) -> torch.Tensor:
    kept: dict[str, list[int]] = {}
    for site, channel in NODES:
        kept.setdefault(site, []).append(channel)
    return planted[0].space.gates(kept)


class TestFaithfulnessCurve:
    def test_it_is_the_share_of_the_logit_difference_that_the_kept_nodes_restore(
        self, planted, truth
    ):
        ablation, batch = planted
        size = ablation.space.size
        fractions = (1 / size, len(NODES) / size, 1.0)
        curve = faithfulness_curve(ablation, truth, batch, fractions)
        assert curve.n_nodes == (1, len(NODES), size)
        masks = torch.stack([torch.zeros(size), truth, torch.ones(size)])
        none, circuit, model = ablation.logit_diffs(masks, batch).mean(1).tolist()
        assert curve.faithfulness[1] == pytest.approx((circuit - none) / (model - none), abs=1e-4)
        assert curve.faithfulness[1] > 1  # without the distractors the answer is clearer
        assert curve.faithfulness[2] == 1.0

    def test_the_areas_are_those_of_the_trapezoids(self, planted, truth):
        ablation, batch = planted
        size = ablation.space.size
        curve = faithfulness_curve(ablation, -truth, batch, (0.25, 0.5, 1.0))
        a, b, c = (count / size for count in curve.n_nodes)
        f, g, h = curve.faithfulness
        assert curve.cpr == pytest.approx((b - a) * (f + g) / 2 + (c - b) * (g + h) / 2)
        distances = (b - a) * (abs(1 - f) + abs(1 - g)) / 2 + (c - b) * abs(1 - g) / 2
        assert curve.cmd == pytest.approx(distances)

    def test_a_ranking_with_the_planted_nodes_last_is_worse(self, planted, truth):
        ablation, batch = planted
        best = faithfulness_curve(ablation, truth, batch)
        worst = faithfulness_curve(ablation, -truth, batch)
        assert best.cmd < 0.15
        assert worst.cmd > 0.3
        assert best.cpr > worst.cpr

    def test_no_node_has_faithfulness_0(self, planted, truth):
        """The last-ranked nodes carry nothing: keeping them is keeping none."""
        ablation, batch = planted
        curve = faithfulness_curve(ablation, -truth, batch, (1 / ablation.space.size, 1.0))
        assert curve.faithfulness[0] == pytest.approx(0.0, abs=1e-3)

    def test_wrong_fractions_and_scores_are_refused(self, planted, truth):
        ablation, batch = planted
        for fractions in ((), (0.5,), (0.0, 1.0), (0.5, 0.2, 1.0)):
            with pytest.raises(InputError, match="must rise from above 0 to 1"):
                faithfulness_curve(ablation, truth, batch, fractions)
        with pytest.raises(InputError, match="expected a score of"):
            faithfulness_curve(ablation, truth[:-1], batch)
        with pytest.raises(InputError, match="finite scores"):
            faithfulness_curve(ablation, truth * float("nan"), batch)

    def test_a_model_that_answers_wrongly_is_refused(self, planted, truth):
        ablation, batch = planted
        swapped = TokenizedPairs(batch.tokens, batch.last_positions, batch.answers.flip(1))
        with pytest.raises(InputError, match="does not do the task"):
            faithfulness_curve(ablation, truth, swapped)
