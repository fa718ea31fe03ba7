"""Files of studies and measures that lack what is drawn are refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wirework.errors import InputError
from wirework.view import (
    write_finders_figure,
    write_measures_figure,
    write_self_ablation_figure,
    write_study_figures,
)

RESULTS = Path(__file__).resolve().parents[3] / "studies" / "results"
MEASURES = {"a": {"headline": {"perplexity": 3.0, "sae_l0": None}}}

Draw = Callable[[Path], Any]
CASES: list[tuple[Draw, str, str | None]] = [
    (write_study_figures, "results.json", "frontier"),
    (write_study_figures, "token_losses.json", "frontier"),
    (write_finders_figure, "finders.json", "finders"),
    (write_self_ablation_figure, "results.json", "self_ablation"),
    (write_measures_figure, "measures.json", None),
]


def filled(folder: Path, study: str | None) -> Path:
    folder.mkdir()
    if study is None:
        (folder / "measures.json").write_text(json.dumps(MEASURES))
    else:
        for path in (RESULTS / study).glob("*.json"):
            shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize(("draw", "name", "study"), CASES)
@pytest.mark.parametrize("content", ["{}", "[]", "3", "null", '{"rows": [{}]}', '{"cells": 1}'])
def test_what_is_no_file_of_results_is_refused(
    draw: Draw, name: str, study: str | None, content: str, tmp_path: Path
) -> None:
    folder = filled(tmp_path / "study", study)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=name) as caught:
        draw(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1e300, r"a.headline.perplexity: Input should be less than"),
        ("x", r"a.headline.perplexity: Input should be a valid number"),
        (float("nan"), r"NaN is no number"),
    ],
)
def test_numbers_that_cannot_be_drawn_are_named(value: Any, message: str, tmp_path: Path) -> None:
    folder = filled(tmp_path / "measures", None)
    (folder / "measures.json").write_text(json.dumps({"a": {"headline": {"perplexity": value}}}))
    with pytest.raises(InputError, match=message):
        write_measures_figure(folder)


def test_names_are_shown_and_told_of_without_what_turns_text(tmp_path: Path) -> None:
    folder = filled(tmp_path / "measures", None)
    (folder / "measures.json").write_text(json.dumps({"a\u202e": MEASURES["a"]}))
    assert write_measures_figure(folder).is_file()
    (folder / "measures.json").write_text(json.dumps({"a\ud800\u202e": MEASURES["a"]}))
    with pytest.raises(InputError, match=r"\\u202e") as caught:
        write_measures_figure(folder)
    assert str(caught.value).isprintable()
