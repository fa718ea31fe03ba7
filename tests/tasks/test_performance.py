"""Whether a model performs a task, from its accuracy and the standard error of that."""

import math

import pytest

from wirework.tasks import TaskReport, TaskTable, accuracy_error, performs


def report(name: str, accuracy: float | None, loss: float | None, n: int = 100) -> TaskReport:
    if accuracy is None:
        return TaskReport(name, False, "no", 0, n, (), *[None] * 4)
    return TaskReport(name, True, "", n, 0, (), loss, accuracy, 0.0, 0.0)


def test_the_error_of_an_accuracy_counts_each_pair_once():
    assert accuracy_error(report("a", 0.5, 1.0, 100)) == pytest.approx(0.05)
    assert accuracy_error(report("a", 0.9, 1.0, 25)) == pytest.approx(math.sqrt(0.09 / 25))
    assert accuracy_error(report("a", None, None)) is None


@pytest.mark.parametrize(
    ("accuracy", "n", "answer"),
    [
        (1.0, 100, "yes"),
        (0.85, 100, "yes"),  # 0.85 - 2 x 0.036 = 0.779
        (0.82, 100, "partly"),  # 0.82 - 2 x 0.038 = 0.743
        (0.62, 100, "partly"),  # 0.62 - 2 x 0.049 = 0.523
        (0.58, 100, "no"),  # 0.58 - 2 x 0.049 = 0.481
        (0.58, 1000, "partly"),  # 0.58 - 2 x 0.0156 = 0.549
        (0.16, 100, "no"),
        (0.0, 100, "no"),
    ],
)
def test_a_model_performs_a_task_if_two_standard_errors_say_so(
    accuracy: float, n: int, answer: str
):
    assert performs(report("a", accuracy, 1.0, n)) == answer


def test_a_report_shows_its_numbers_and_keeps_its_answers_in_json():
    shown = TaskReport("a", True, "", 4, 0, (("x", 3),), 0.25, 1.0, 2.0, 0.5)
    assert len(repr(shown).splitlines()) <= 5
    assert "accuracy 1" in repr(shown)
    assert shown.to_dict()["answers"] == (("x", 3),)


def test_a_task_that_does_not_fit_is_neither():
    assert performs(report("a", None, None)) is None


def test_a_table_is_sorted_by_loss_and_shown_in_a_few_lines():
    reports = [
        report("far", 0.5, 0.7), report("unfit", None, None), report("near", 1.0, 0.1),
        report("mid", 0.7, 0.5),
    ]  # fmt: skip
    table = TaskTable.of(reports)
    assert [one.name for one in table.tasks] == ["near", "mid", "far", "unfit"]
    assert [one.name for one in table.that("partly")] == ["mid"]
    assert table.summary() == {
        "yes": 1, "partly": 1, "no": 1, "do not fit": 1, "performs": "near",
    }  # fmt: skip
    assert len(repr(table).splitlines()) <= 6
    assert "near" in repr(table)
    assert table.to_dict()["tasks"][0]["name"] == "near"
    with pytest.raises(AttributeError):
        table.tasks = ()  # type: ignore[misc]
