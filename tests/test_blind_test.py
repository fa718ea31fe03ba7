"""`python -m benchmarks.blind_test`: the rates, the circuits it makes and how it sorts them."""

from itertools import pairwise
from typing import Any

import pytest

from benchmarks.blind_test import calibrate, sort
from benchmarks.blind_test.evidence import evidence
from benchmarks.blind_test.rates import Rate, is_real, is_real_at, is_robust_at, loosest_share
from benchmarks.blind_test.specimens import NULLS, REAL, name_labels, specimen
from benchmarks.blind_test.subjects import planted_subject
from wirework.errors import InputError
from wirework.tasks import Pair, Task, evaluate


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this file."""


def record(**changes: Any) -> dict[str, Any]:
    """Return the record of a circuit that passes, with some losses changed."""
    losses = {"held_out": 0.15, "model": 0.0, "resampled": 0.2, "interchange": 0.2}
    criteria = {name: {"met": True, "value": loss} for name, loss in losses.items()}
    criteria["without_circuit"] = {"met": True, "value": changes.pop("without_circuit", 2.0)}
    for name, loss in changes.items():
        criteria[name] = {"met": True, "value": loss}
    levels = {"sufficient": True, "specific": True, "robust": True}
    return {
        "target_loss": 0.1, "chance": 0.7, "circuit_error": 0.03, "other": 3.0, "n_nodes": 5,
        "criteria": criteria, "levels": levels,
    }  # fmt: skip


class TestRate:
    def test_the_upper_end_of_no_event_is_that_of_the_rule_of_three(self):
        assert Rate(0, 200).highest == pytest.approx(1 - 0.05 ** (1 / 200))
        assert Rate(0, 200).highest == pytest.approx(0.0149, abs=1e-4)
        assert Rate(0, 100).highest == pytest.approx(0.0295, abs=1e-4)

    def test_ends_of_all_events_and_of_half(self):
        assert (Rate(7, 7).highest, Rate(0, 7).lowest) == (1.0, 0.0)
        assert Rate(7, 7).lowest == pytest.approx(0.05 ** (1 / 7))
        assert Rate(5, 10).lowest == pytest.approx(1 - Rate(5, 10).highest)


class TestBars:
    @pytest.mark.parametrize(
        ("changes", "least_share"),
        [
            ({}, 0.1),
            ({"model": 0.39}, 0.5),
            ({"held_out_templates": 0.27}, 0.3),
            ({"held_out": 0.17}, None),
            ({"without_circuit": 0.05}, None),
            ({"empty": None}, None),
        ],
    )
    def test_a_circuit_passes_from_the_bar_of_its_highest_loss_on(
        self, changes: dict[str, Any], least_share: float | None
    ):
        one = record(**changes)
        passing = [share / 10 for share in range(1, 11) if is_real_at(one, share / 10)]
        assert min(passing, default=None) == least_share

    def test_robust_needs_both_losses_and_the_other_answer(self):
        assert is_robust_at(record(), 0.2)
        assert not is_robust_at(record(), 0.1)
        assert not is_robust_at(record(resampled=None), 1.0)
        assert not is_robust_at({**record(), "other": 0.5}, 1.0)

    def test_the_loosest_bar_lets_no_more_nulls_pass_than_is_allowed(self):
        nulls = [record(model=5.0) for _ in range(98)]
        assert loosest_share(nulls) == 1.0
        assert loosest_share([*nulls, *[record(model=0.41) for _ in range(2)]]) == 1.0
        assert loosest_share([*nulls, *[record(model=0.41) for _ in range(3)]]) == 0.5
        assert loosest_share([record()]) == 0.05


class TestSpecimens:
    def test_models_do_the_task_unless_the_path_is_cancelled(self):
        losses = [
            evaluate(subject.model, subject.task).loss
            for subject in (
                planted_subject(0), planted_subject(1, "cancelled"), planted_subject(2, "unused"),
            )
        ]  # fmt: skip
        assert losses == pytest.approx([0.0, 0.693, 0.0], abs=0.01)

    def test_name_labels_swap_a_share_of_the_answers_by_a_line_that_varies(self):
        texts = [f"x = 1\nimport {name}\n{n}" for n in range(4) for name in ("os", "re", "abc")]
        pairs = tuple(Pair((f"{text} x", f"{text} y"), ("X", "Y")) for text in texts)
        for seed in range(12):
            labelled = name_labels(Task("t", pairs), seed).pairs
            for before, pair in zip(pairs, labelled, strict=True):
                assert pair.prompts == before.prompts
                assert set(pair.answers) == {"X", "Y"}
            swapped = [pair.answers == ("Y", "X") for pair in labelled]
            assert 3 <= sum(swapped) <= 9

    def test_name_labels_need_a_line_that_varies(self):
        pairs = tuple(Pair((f"a {n}", f"b {n}"), ("X", "Y")) for n in range(1))
        with pytest.raises(InputError, match="no line in common"):
            name_labels(Task("t", pairs), 0)

    @pytest.mark.parametrize(
        ("kind", "variant", "levels"),
        [
            ("wired", "plain", (True, True)),
            ("cancelled path", "cancelled", (True, False)),
            ("unused path", "unused", (True, False)),
            ("random circuit", "plain", (False, False)),
        ],
    )
    def test_which_level_a_kind_of_circuit_reaches(
        self, kind: str, variant: Any, levels: tuple[bool, bool]
    ):
        subject = planted_subject(4, variant)
        measured = evidence(specimen(subject, kind, 0), subject.text)
        assert (measured["levels"]["sufficient"], measured["levels"]["specific"]) == levels
        assert is_real(measured) is is_real_at(measured, 0.5) is all(levels)


def test_half_of_the_40_cases_are_real_and_their_order_says_nothing():
    planned = sort.cases(with_trained=True)
    truth = [case.kind in REAL for case in planned]
    assert (len(truth), sum(truth)) == (40, 20)
    assert {case.kind for case in planned} == {*REAL, *NULLS}
    assert sum(a != b for a, b in pairwise(truth)) > 10
    assert len({(case.seed, case.is_trained, case.kind) for case in planned}) == 40


def test_the_calibration_has_enough_null_circuits():
    assert sum(calibrate.COUNTS[kind] for kind in NULLS) >= 200
