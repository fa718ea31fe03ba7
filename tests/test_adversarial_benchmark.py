"""`python -m benchmarks.adversarial`: a circuit is searched and attacked."""

import json
from pathlib import Path

import pytest

from benchmarks.adversarial import SEARCHES, measured, rows_of
from benchmarks.blind_test.subjects import Subject, planted_subject


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For all tests of this file."""


@pytest.fixture(scope="module")
def subject() -> Subject:
    return planted_subject(1000)


@pytest.mark.parametrize("ablation", SEARCHES)
def test_a_row_has_sizes_and_the_losses_of_the_attack(subject: Subject, ablation: str):
    row = measured(subject.model, subject.task, SEARCHES[ablation], subject.text)
    assert row["reached"]
    assert row["n_nodes"] > 0
    assert row["means"] <= row["per_node"] <= row["per_prompt"]
    assert row["survives"] == (row["per_prompt"] <= row["limit"])


def test_a_search_that_is_refused_is_a_row_with_its_reason(subject: Subject):
    config = SEARCHES["mean"].model_copy(update={"target_loss": 2.0})
    row = measured(subject.model, subject.task, config, subject.text)
    assert list(row) == ["reason"]
    assert "asks for nothing" in row["reason"]


def test_rows_of_another_model_or_search_are_refused(tmp_path: Path):
    path, about = tmp_path / "results.json", {"model": "a", "searches": {"mean": {"trials": 1}}}
    assert rows_of(path, about) == []
    path.write_text(json.dumps({**about, "rows": [{"task": "for_while"}]}))
    assert rows_of(path, about) == [{"task": "for_while"}]
    for other in ({"model": "b"}, {"searches": {"mean": {"trials": 2}}}):
        with pytest.raises(SystemExit, match="is of another model or other searches"):
            rows_of(path, about | other)
