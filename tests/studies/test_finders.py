import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))

from hand_wired import Corpus, Planted
from hand_wired.quote_closer import plant

from wirework.circuits import faithfulness_curve
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pruning.prune import PruningRun
from wirework.circuits.pruning.trials import score_gates
from wirework.config import PruneConfig
from wirework.errors import DamagedError, InputError
from wirework.files import read_json, read_record
from wirework.studies import finders
from wirework.view.figures.figure_faithfulness import draw_faithfulness
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
    assert {(curve.finder, curve.target_loss) for curve in result.curves} == {
        ("learned", 0.3), ("learned", 0.15), ("attribution", None),
    }  # fmt: skip
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
class TestFaithfulnessCurves:
    """CPR and CMD of each finder's ranking."""

    def test_each_ranking_and_task_has_a_curve_on_held_out_pairs(self, planted, tmp_path):
        result = study(planted, tmp_path, finders=FINDERS[1:], targets=(0.15,))
        (curve,) = result.curves
        bare, cleaned = result.rows
        assert (bare.cpr, bare.cmd) == (curve.cpr, curve.cmd) == (cleaned.cpr, cleaned.cmd)
        corpus = Corpus(planted.model.tokenizer, planted.task)
        config = QUICK.model_copy(update={"finder": "attribution"})
        baseline = AblationBaseline.of(planted.model, corpus, config)
        run = PruningRun.of(planted.model, planted.task, config, baseline)
        train, held_out = (
            tokenize_task(part, planted.model) for part in (run.parts.train, run.parts.held_out)
        )
        score = score_gates(run.ablation, train, "attribution", config.seed)
        ablation = baseline.second_sample(planted.model, config)
        expected = faithfulness_curve(ablation, score, held_out)
        assert curve.faithfulness == pytest.approx(expected.faithfulness)
        assert (curve.cpr, curve.cmd) == pytest.approx((expected.cpr, expected.cmd))
        assert curve.n_nodes == expected.n_nodes
        assert read_record(tmp_path / "finders.json")["curves"] == json.loads(
            json.dumps([curve.to_dict()])
        )
        assert result.curves_figure == str(tmp_path / "faithfulness.png")

    def test_learned_masks_are_ranked_by_their_smallest_trial(self, planted, tmp_path):
        result = study(planted, tmp_path, finders=FINDERS[:1], targets=(0.15,))
        (curve,), (row,) = result.curves, result.rows
        assert (curve.finder, curve.target_loss) == ("learned", 0.15)
        assert (row.cpr, row.cmd) == (curve.cpr, curve.cmd)
        shutil.rmtree(tmp_path / "circuits" / "learned" / "0.15" / f"{planted.task.name}.search")
        again = study(planted, tmp_path, finders=FINDERS[:1], targets=(0.15,))
        assert again.curves == ()
        assert (again.rows[0].cpr, again.rows[0].n_tasks) == (None, 1)

    def test_the_figure_has_a_line_for_each_ranking(self):
        points = {"n_nodes": (1, 9), "task": "a"}
        curves = [
            points | {"finder": "learned", "target_loss": 0.3, "faithfulness": (0.5, 1)},
            points | {"finder": "learned", "target_loss": 0.3, "faithfulness": (0.1, 1)},
            points | {"finder": "random", "target_loss": None, "faithfulness": (0, 1)},
        ]
        (axes,) = draw_faithfulness({"curves": curves}).axes
        lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()[:2]}
        assert lines == {
            "learned, target 0.3": pytest.approx([0.3, 1]),
            "random": pytest.approx([0, 1]),
        }

    def test_results_of_earlier_versions_have_no_curves(self, tmp_path):
        golden = Path(__file__).parents[1] / "golden" / "finders" / "finders.json"
        (tmp_path / "finders.json").write_bytes(golden.read_bytes())
        assert write_finders_figure(tmp_path).is_file()


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
