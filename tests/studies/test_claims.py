"""The claims of Fig. 3 on hand-made cells."""

import math
from random import Random
from typing import Any

import pytest

from wirework.studies.claims import (
    L0_CLAIM,
    WIDTH_CLAIM,
    FrontierClaim,
    claims,
    comparisons,
)

TASKS = ("a", "b", "c", "d")


def cell(width: int, l0: int, loss: float, *sizes: int, kind: str = "sparse") -> dict[str, Any]:
    rows = [
        {"task": task, "reached": True, "n_edges": size, "paper_edges": 3 * size}
        for task, size in zip(TASKS, sizes, strict=False)
    ]
    return {
        "name": f"w{width}-l{l0}", "kind": kind, "width": width, "l0_count": l0,
        "act_fraction": 0.25, "val_loss": loss, "tasks": rows, "n_nonzero": l0 + 1,
    }  # fmt: skip


SEEDS = [cell(32, 900, 3.50, 10, 20), cell(32, 900, 3.52, 11, 22), cell(32, 900, 3.51, 10, 20)]
"""One model with three seeds: standard deviations 0.01 nats and, of log edges, ln 1.1 / sqrt 3."""
T = 4.302653
"""97.5% quantile of Student's t with two degrees of freedom, from a table."""


def judged(cells: list[dict[str, Any]], seeds: list[dict[str, Any]]) -> dict[str, FrontierClaim]:
    return {claim.claim: claim for claim in claims(cells, seeds) if claim.count == "edges"}


class TestNoise:
    LINE = (cell(32, 900, 3.6, 100, 100), cell(32, 1800, 3.4, 109, 109))

    def test_it_is_that_of_two_single_runs(self):
        (row,) = comparisons(self.LINE, SEEDS)
        assert row["loss_noise"] == pytest.approx(T * 0.01 * math.sqrt(2))
        by_seeds = T * math.log(1.1) / math.sqrt(3) * math.sqrt(2)
        assert row["size_noise"] == pytest.approx(math.exp(by_seeds))

    def test_one_seed_has_none(self):
        (row,) = comparisons(self.LINE, SEEDS[:1])
        assert (row["loss_noise"], row["size_noise"]) == (None, None)

    def test_only_tasks_of_all_seeds_count(self):
        (row,) = comparisons(self.LINE, [*SEEDS, cell(32, 900, 3.5)])
        assert row["size_noise"] is None
        assert row["loss_noise"] is not None

    def test_chance_tells_one_model_in_twenty_apart(self):
        rng, n_loss, n_size, n_draws = Random(0), 0, 0, 2000

        def drawn(l0: int) -> dict[str, Any]:
            sizes = [round(1000 * math.exp(rng.gauss(0, 0.3))) for _ in TASKS]
            return cell(32, l0, rng.gauss(3, 0.01), *sizes)

        for _ in range(n_draws):
            (row,) = comparisons([drawn(900), drawn(1800)], [drawn(900) for _ in range(3)])
            n_loss += row["loss"] != "not told apart"
            n_size += row["size"] != "not told apart"
        assert 0.04 < n_loss / n_draws < 0.06
        assert 0.001 < n_size / n_draws < 0.05  # two tests, of seeds and of tasks


class TestComparisons:
    def test_a_line_is_compared_by_its_ends_over_common_tasks(self):
        cells = [cell(32, 900, 3.6, 4, 8, 5), cell(32, 1200, 3.5, 1, 1), cell(32, 1800, 3.4, 8, 32)]
        (row,) = comparisons(cells, SEEDS)
        assert (row["claim"], row["first"], row["second"]) == (L0_CLAIM, "w32-l900", "w32-l1800")
        assert row["n_tasks"] == 2
        assert row["size_ratio"] == pytest.approx(math.sqrt(4 * 8 / (8 * 32)))
        # Log ratios -ln 2 and -ln 4: the standard error of their mean is ln 2 / 2, and with one
        # degree of freedom chance exceeds 12.706 times that in 5% of cases.
        assert row["size_noise"] == pytest.approx(math.exp(12.7062047 * math.log(2) / 2))
        assert (row["size"], row["agrees"]) == ("not told apart", None)

    def test_a_smaller_change_than_over_seeds_is_not_told_apart(self):
        cells = [cell(32, 900, 3.6, 100, 100), cell(32, 1800, 3.4, 109, 109)]
        (row,) = comparisons(cells, SEEDS)
        assert row["size_noise"] == pytest.approx(math.exp(T * math.log(1.1) * math.sqrt(2 / 3)))
        assert (row["size"], row["agrees"]) == ("not told apart", None)

    def test_dense_models_and_lines_of_one_model_are_left_out(self):
        cells = [cell(32, 900, 3.6, 4, 4), cell(64, 1800, 3.6, 4, 4)]
        assert comparisons([*cells, cell(32, 1800, 3.0, 9, 9, kind="dense")], SEEDS) == []

    def test_a_model_whose_floor_kept_more_is_left_out(self):
        bound = {**cell(32, 900, 3.6, 4, 4), "n_nonzero": 1150}
        assert comparisons([bound, cell(32, 1800, 3.4, 9, 9)], SEEDS) == []
        claim, *_ = claims([bound, cell(32, 1800, 3.4, 9, 9)], SEEDS)
        assert claim.words.endswith("left out: 1 model with another L0 than was asked for")


class TestClaims:
    LOW, HIGH = (4, 4, 4, 4), (16, 16, 16, 16)

    def test_both_hold_where_every_line_is_told_apart(self):
        cells = [
            cell(32, 900, 3.6, *self.HIGH),
            cell(32, 1800, 3.5, *(4 * size for size in self.HIGH)),
            cell(96, 900, 3.4, *self.LOW),
            cell(96, 1800, 3.3, *self.HIGH),
        ]
        found = judged(cells, SEEDS)
        assert {claim.outcome for claim in found.values()} == {"holds"}
        assert found[WIDTH_CLAIM].words == (
            "at fixed L0, larger width improves both loss and circuit size: holds; by edges, of 2 "
            "lines 2 for it, 0 against it, 0 not told apart; circuits at the larger width have "
            "0.25 times the edges; the loss changes by -0.200 nats (2 lower); by 3 seeds of one "
            "model, two single models are told apart beyond 0.061 nats and a factor of 1.40 in "
            "edges"
        )
        by_count = [claim for claim in claims(cells, SEEDS) if claim.count != "edges"]
        assert [claim.outcome for claim in by_count] == ["holds", "holds"]

    def test_a_wider_model_with_larger_circuits_speaks_against_the_second_claim(self):
        cells = [cell(32, 900, 3.6, *self.LOW), cell(96, 900, 3.4, *self.HIGH)]
        assert judged(cells, SEEDS)[WIDTH_CLAIM].outcome == "does not hold"

    def test_an_equal_loss_leaves_the_second_claim_open(self):
        cells = [cell(32, 900, 3.600, *self.HIGH), cell(96, 900, 3.585, *self.LOW)]
        assert judged(cells, SEEDS)[WIDTH_CLAIM].outcome == "not told apart"

    def test_lines_of_both_kinds_are_mixed_and_open_ones_make_a_part(self):
        lower = [cell(32, 900, 3.6, *self.LOW), cell(32, 1800, 3.5, *self.HIGH)]
        higher = [cell(64, 900, 3.6, *self.HIGH), cell(64, 1800, 3.5, *self.LOW)]
        equal = [cell(64, 900, 3.6, *self.LOW), cell(64, 1800, 3.5, *self.LOW)]
        assert judged(lower + higher, SEEDS)[L0_CLAIM].outcome == "mixed"
        assert judged(lower + equal, SEEDS)[L0_CLAIM].outcome == "holds in part"

    def test_one_seed_tells_nothing_apart(self):
        cells = [cell(32, 900, 3.6, *self.LOW), cell(32, 1800, 3.5, *self.HIGH)]
        claim = judged(cells, SEEDS[:1])[L0_CLAIM]
        assert claim.outcome == "not told apart"
        assert "one seed: the spread over seeds is not known" in claim.words

    def test_without_lines_nothing_is_measured(self):
        assert {claim.outcome for claim in claims([], [])} == {"not measured"}
