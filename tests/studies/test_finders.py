import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))

from hand_wired import Corpus, Planted
from hand_wired.quote_closer import plant

from wirework.config import PruneConfig
from wirework.errors import DamagedError, InputError
from wirework.files import read_json, read_record
from wirework.studies import finders
from wirework.view.figures.figure_study import draw_finders, write_finders_figure

QUICK = PruneConfig(
    trials=2, parallel=2, steps=30, batch_pairs=8, eval_pairs=24, lr=1e-2, k_coef=1e-3
)
FINDERS = ("learned", "attribution", "attribution + clean-up")


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant()


def study(planted: Planted, out: Path, **more):
    corpus = Corpus(planted.model.tokenizer, planted.task)
    options = {"finders": FINDERS, "targets": (0.15, 0.3), "data": corpus, "progress": False}
    return finders(planted.model, [planted.task], out, QUICK, **(options | more))


@pytest.mark.slow
@pytest.mark.usefixtures("few_random_circuits")
def test_every_finder_has_a_line_and_a_second_call_draws_the_same(planted, tmp_path) -> None:
    result = study(planted, tmp_path)
    sizes = {(row.finder, row.target_loss): row.kept_edges for row in result.rows}
    assert read_record(tmp_path / "finders.json")["rows"] == [row.to_dict() for row in result.rows]
    assert sizes["learned", 0.15] == pytest.approx(3)
    assert sizes["attribution + clean-up", 0.15] == pytest.approx(3)
    assert sizes["attribution", 0.15] > 3
    assert (tmp_path / "finders.png").stat().st_size > 1000
    (axes,) = draw_finders(read_record(tmp_path / "finders.json")).axes
    first, *others = FINDERS
    assert [line.get_label() for line in axes.get_lines()] == [
        first, "learned, bisection alone (the paper's)", *others,
    ]  # fmt: skip
    assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "--", "--", "-"]
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [2, 2, 2, 2]
    bare = next(row for row in result.rows if row.finder == "attribution")
    cleaned = next(row for row in result.rows if row.finder == "attribution + clean-up")
    assert bare.paper_edges == cleaned.paper_edges == bare.edges
    saved = tmp_path / "circuits" / "learned" / "0.15" / planted.task.name / "circuit.json"
    before = saved.stat().st_mtime_ns
    left = tmp_path / ".finders.json.12.partial"
    left.touch()
    assert study(planted, tmp_path) == result
    assert saved.stat().st_mtime_ns == before
    assert not left.exists()
    for name, read in (
        ("manifest.json", lambda: study(planted, tmp_path)),
        ("finders.json", lambda: write_finders_figure(tmp_path)),
    ):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace("0.15", "0.16"))
        with pytest.raises(DamagedError, match=rf"{name} is damaged: it does not match its"):
            read()


@pytest.mark.usefixtures("few_random_circuits")
def test_a_target_that_a_model_misses_has_no_point(planted, tmp_path) -> None:
    result = study(planted, tmp_path, finders=("attribution",), targets=(1e-9,))
    (row,) = result.rows
    assert (row.n_tasks, row.edges) == (0, None)


def test_what_cannot_be_asked_for(planted, tmp_path) -> None:
    with pytest.raises(InputError, match="no finder 'guess'; finders are learned, attribution"):
        study(planted, tmp_path, finders=("guess",))
    with pytest.raises(InputError, match="the study sets finder, target_loss itself"):
        finders(
            planted.model, [planted.task], tmp_path, PruneConfig(finder="random", target_loss=1)
        )
    for targets, problem in (((0.15, 0), "target_loss: "), ((0.15, 2), "asks for nothing")):
        with pytest.raises(InputError, match=problem):
            study(planted, tmp_path, targets=targets)
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "circuits").mkdir()
    with pytest.raises(InputError, match="holds files but is no study of finders: choose another"):
        study(planted, tmp_path)


@pytest.mark.usefixtures("few_random_circuits")
def test_what_is_asked_for_twice_is_done_once(planted, tmp_path) -> None:
    twice = {"finders": ("attribution", "attribution"), "targets": (0.3, 0.3)}
    assert len(study(planted, tmp_path, **twice)["rows"]) == 1
    assert read_json(tmp_path / "manifest.json")["finders"] == ["attribution"]
