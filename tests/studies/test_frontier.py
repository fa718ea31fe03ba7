"""The whole study on a tiny grid: real training, real pruning, real figures."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Started, run_here
from studies_fixtures import WORDS

from wirework.config import FrontierConfig, TrainConfig
from wirework.errors import DamagedError, InputError, UnreadableError
from wirework.files import read_json
from wirework.studies import frontier, grid, settings_of
from wirework.studies.attainable import check_attainable
from wirework.studies.points import portable
from wirework.training import train
from wirework.view import write_study_figures

SPARSE, DENSE, RESEEDED = "sparse-w32-l9000-a0.25", "dense-w16-s6-seed0", "dense-w16-s6-seed1"
SPARSE_RESEEDED, EQUAL_TOKENS = f"{SPARSE}-seed1", "dense-w32-s6-seed0"
SWEEP = {"lrs": [0.004, 0.016], "lr_share": 0.5}
IMPOSSIBLE = "sparse-w32-l999999-a0.25"
FIGURES = ["fig02.png", "fig03.png", "fig10.png", "fig33.png"]

Study = Callable[..., FrontierConfig]


@pytest.fixture(scope="module")
def config(study: Study) -> FrontierConfig:
    """Return settings of three models, one of them impossible."""
    return study(
        l0_counts=[999999, 9000],
        **SWEEP,
        pair_seeds=[1],
        budgets=["tokens", "compute"],
    )


@pytest.fixture(scope="module")
def done(config: FrontierConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return a study's folder and what the call returned."""
    out = tmp_path_factory.mktemp("study") / "frontier"
    return out, frontier(config, out, progress=False)


@pytest.fixture
def copy(done: tuple[Path, Any], tmp_path: Path) -> Path:
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


class TestFrontier:
    def test_one_impossible_model_does_not_stop_the_others(self, done: tuple[Path, Any]):
        out, result = done
        rows = {row.name: row for row in result.cells}
        assert list(rows) == [SPARSE, DENSE, IMPOSSIBLE]
        assert "999999 nonzero weights were asked for" in rows[IMPOSSIBLE].error
        assert rows[IMPOSSIBLE].val_loss is None
        failed = read_json(out / "cells" / IMPOSSIBLE / "failed.json")
        assert failed["error"] == rows[IMPOSSIBLE].error
        assert rows[SPARSE].error is None
        assert rows[SPARSE].n_nonzero == pytest.approx(9000, rel=0.01)
        assert rows[DENSE].n_nonzero == rows[DENSE].n_weights
        assert rows[SPARSE].n_circuits == rows[DENSE].n_circuits == 1
        assert result["cells"][0] == rows[SPARSE].to_dict()  # by key, for one release

    def test_results_hold_every_number_of_the_figures(
        self, done: tuple[Path, Any], config: FrontierConfig
    ):
        out, result = done
        assert [Path(path).name for path in result.figures] == FIGURES
        assert all((out / name).stat().st_size > 10_000 for name in FIGURES)
        results = read_json(out / "results.json")
        assert results["pair"]["sparse"] == SPARSE
        assert results["verdict"] == result.verdict
        assert results["pair"]["ratio"] == result.pair.ratio
        assert [row["target_loss"] for row in results["targets"]] == [8.0, 4.0]
        assert all(row["tasks"] == ["for_while"] for row in results["targets"])
        assert results["twin"]["name"] == RESEEDED
        for cell in results["cells"]:
            assert cell["kurtosis"] > 0
            assert cell["log_kurtosis"] > 0
            circuit = out / "cells" / cell["name"] / "circuits" / "4" / "for_while" / "circuit.json"
            assert read_json(circuit)["n_edges"] == cell["tasks"][0]["n_edges"]
        tokens = read_json(out / "token_losses.json")
        assert [joint["second"] for joint in tokens["joints"]] == [SPARSE, RESEEDED]
        losses = {cell["name"]: cell["val_loss"] for cell in [*results["cells"], results["twin"]]}
        for joint in tokens["joints"]:
            assert joint["n_tokens"] == 2 * 4 * 64
            expected = [losses[joint["first"]], losses[joint["second"]]]
            assert joint["means"] == pytest.approx(expected, rel=1e-4)

    def test_every_loss_stands_beside_that_of_the_bigram_table(self, done: tuple[Path, Any]):
        out, result = done
        results = read_json(out / "results.json")
        assert 0 < results["bigram_loss"] < math.log(WORDS)
        rows = [*results["cells"], *results["seeds"], *results["budgets"], *results["extra_cells"]]
        assert {row["bigram_loss"] for row in rows} == {results["bigram_loss"]}
        assert {row.bigram_loss for row in result.cells if not row.error} == {
            results["bigram_loss"]
        }

    def test_the_short_run_of_the_lowest_loss_gives_each_model_its_rate(
        self, done: tuple[Path, Any], config: FrontierConfig
    ):
        out, _ = done
        results = read_json(out / "results.json")
        for cell in [*results["cells"], *results["extra_cells"]]:
            sweep = cell["lr_sweep"]
            assert [row["setting"] for row in sweep["tried"]] == [0.004, 0.016]
            best = min(sweep["tried"], key=lambda row: row["val_loss"])
            factor = config.dense_lr if cell["kind"] == "dense" else 1
            assert cell["lr"] == best["lr"] == factor * best["setting"]
            assert sweep["steps"] == 3 or cell["steps"] != 6
            assert sweep["at_edge"] is True  # of two rates each is at an edge
            run = out / "cells" / cell["name"] / "run" / "config.yaml"
            assert TrainConfig.load(run).optimizer.lr == cell["lr"]

    def test_circuits_have_losses_and_verdicts_and_cells_count_them(self, done: tuple[Path, Any]):
        out, result = done
        row = read_json(out / "results.json")["cells"][0]
        (task,) = row["tasks"]
        assert {"held_out", "resampled"} <= task.keys()
        counts = {"open": row["n_open"], "not faithful": row["n_not_faithful"]}
        assert counts[task["verdict"]] == 1
        assert sum(counts.values()) + row["n_faithful"] == row["n_circuits"]
        assert result.cells[0].n_not_faithful == row["n_not_faithful"]
        assert (result.cells[0].l0_count, result.cells[0].n_nonzero) == (9000, row["n_nonzero"])

    def test_the_pair_is_trained_with_each_seed(self, done: tuple[Path, Any]):
        out, result = done
        assert [row.seed for row in result.seeds] == [0, 1]
        assert [row.sparse for row in result.seeds] == [SPARSE, SPARSE_RESEEDED]
        assert [row.dense for row in result.seeds] == [DENSE, RESEEDED]
        assert result.seeds[0].ratio == result.pair.ratio
        assert result.seeds[0].sparse_loss != result.seeds[1].sparse_loss
        assert "over 2 seeds" in result.verdict
        names = [cell["name"] for cell in read_json(out / "results.json")["extra_cells"]]
        assert {SPARSE_RESEEDED, RESEEDED, EQUAL_TOKENS} <= set(names)

    def test_dense_models_have_equal_tokens_and_equal_compute(self, done: tuple[Path, Any]):
        _, result = done
        tokens, compute = result.budgets
        assert (tokens.given, tokens.dense, compute.given) == ("tokens", EQUAL_TOKENS, "compute")
        assert tokens.sparse_tokens == tokens.dense_tokens == 6 * 4 * 64
        assert tokens.sparse_multiply_adds < tokens.dense_multiply_adds
        # Dense steps are whole: the budget is met to half of one of the few steps.
        one_step = tokens.dense_multiply_adds / 6
        assert abs(compute.sparse_multiply_adds - compute.dense_multiply_adds) <= one_step / 2

    def test_claims_of_a_single_sparse_model_are_not_measured(self, done: tuple[Path, Any]):
        _, result = done
        assert {(claim.outcome, claim.n_lines) for claim in result.claims} == {("not measured", 0)}

    def test_the_manifest_reproduces_each_point(self, done: tuple[Path, Any], tmp_path: Path):
        out, _ = done
        manifest = read_json(out / "manifest.json")
        points = {point["name"]: point for point in manifest["points"]}
        extra = list(points)[4:]
        assert list(points)[:4] == [IMPOSSIBLE, SPARSE, DENSE, RESEEDED]
        assert extra[:2] == [SPARSE_RESEEDED, EQUAL_TOKENS]
        assert "999999" in points[IMPOSSIBLE]["error"]
        config = FrontierConfig.of(manifest["config"])
        for point in grid(config)[1:]:
            setting = read_json(out / "cells" / point.name / "cell.json")["lr_sweep"]["setting"]
            given = portable(settings_of(point, config, out, lr=setting))
            assert given == points[point.name]["train"] | {"device": "auto"}
        assert str(out.parent) not in json.dumps(manifest)
        for name in (SPARSE, RESEEDED):
            place = {"name": name, "runs": str(tmp_path)}
            again = TrainConfig.of({**points[name]["train"], **place})
            again = TrainConfig.of(
                {**again.model_dump(), "data": {**again.data.model_dump(), "cache": tmp_path}}
            )
            run = train(again, progress=False)
            cell = read_json(out / points[name]["files"] / "cell.json")
            assert run.metrics["val_loss"] == cell["val_loss"]
            assert run.model.fingerprint == cell["fingerprint"]
            assert points[name]["data"] == cell["data"]
            assert points[name]["machine"]["threads"] == 1

    def test_a_finished_study_is_only_drawn_again(self, copy: Path, config: FrontierConfig):
        for name in FIGURES:
            (copy / name).unlink()
        before = stamps(copy)
        results = (copy / "results.json").read_bytes()
        shutil.rmtree(copy / "data")  # nor is the text looked at
        again = frontier(config, copy, progress=False)
        assert [Path(path).name for path in again["figures"]] == FIGURES
        assert (copy / "results.json").read_bytes() == results
        assert stamps(copy) == before

    @pytest.mark.slow
    def test_a_model_that_was_cut_off_is_gone_on_with(self, copy: Path, config: FrontierConfig):
        (copy / "cells" / SPARSE / "cell.json").unlink()
        (copy / "cells" / SPARSE / "circuits" / "4.json").unlink()
        before = stamps(copy)
        results = read_json(copy / "results.json")
        again = frontier(config, copy, progress=False)
        assert again["verdict"] == results["verdict"]
        assert read_json(copy / "results.json") == results
        after = stamps(copy)
        assert {
            name: after[name] for name in before
        } == before  # neither run nor circuit is made anew
        assert after.keys() - before.keys() == {
            f"cells/{SPARSE}/cell.json",
            f"cells/{SPARSE}/circuits/4.json",
        }

    def test_a_damaged_cell_fails_alone(self, copy: Path, config: FrontierConfig):
        path = copy / "cells" / SPARSE / "cell.json"
        path.write_text("{}")
        again = frontier(config, copy, progress=False)
        errors = {row["name"]: row["error"] for row in again["cells"]}
        assert f"{path} is damaged: it has no checksum; delete it" in errors[SPARSE]
        assert errors[DENSE] is None

    def test_a_cell_that_cannot_be_read_stops_the_study(
        self,
        copy: Path,
        config: FrontierConfig,
        unreadable: Callable[..., AbstractContextManager[None]],
    ):
        before = stamps(copy)
        said = r"^cannot read .*cell\.json: Input/output error$"
        with (
            unreadable(copy / "cells" / SPARSE / "cell.json"),
            pytest.raises(UnreadableError, match=said),
        ):
            frontier(config, copy, progress=False)
        assert stamps(copy) == before
        assert not (copy / "cells" / SPARSE / "failed.json").exists()

    def test_other_settings_of_the_search_prune_again_but_train_nothing(
        self, copy: Path, study: Study, settings: Callable[..., dict[str, Any]]
    ):
        before = stamps(copy)
        search = {**settings()["prune"], "target_loss": 8.0}
        again = frontier(study(prune=search, **SWEEP), copy, progress=False)
        assert [row["error"] for row in again["cells"]] == [None, None]
        after = stamps(copy)
        assert all(after[name] == old for name, old in before.items() if "/run/" in name)
        assert (
            read_json(copy / "cells" / SPARSE / "cell.json")["settings"]["prune"]["target_loss"]
            == 8
        )

    @pytest.mark.slow
    def test_other_settings_of_training_fail_that_model(
        self, copy: Path, study: Study, settings: Callable[..., dict[str, Any]]
    ):
        longer = {**settings()["train"], "steps": 7}
        again = frontier(study(train=longer, **SWEEP), copy, progress=False)
        errors = {row["name"]: row["error"] for row in again["cells"]}
        assert "steps: 6 -> 7" in errors[SPARSE]
        assert errors["dense-w16-s7-seed0"] is None
        assert not (copy / "fig02.png").exists()  # no pair is left

    def test_text_that_has_changed_is_refused(
        self,
        copy: Path,
        study: Study,
        settings: Callable[..., dict[str, Any]],
        corpus: Path,
        tmp_path: Path,
    ):
        other = Path(shutil.copytree(corpus, tmp_path / "corpus"))
        (other / "more.py").write_text("".join(f"v{i} = {i}\n" for i in range(999)))
        common = settings()["train"]
        changed = {**common, "data": {**common["data"], "corpus": str(other)}}
        with pytest.raises(InputError, match=r"the text has changed since .* was trained: choose"):
            frontier(study(train=changed), copy, progress=False)

    def test_a_study_without_dense_models_has_no_pair(self, copy: Path, study: Study):
        again = frontier(study(dense_widths=[], **SWEEP), copy, progress=False)
        assert again["pair"] is None
        assert [Path(path).name for path in again["figures"]] == ["fig03.png", "fig10.png"]

    def test_if_all_models_fail_the_study_does(self, study: Study, tmp_path: Path):
        with pytest.raises(
            InputError, match=r"every model failed; sparse-w24-l9-a0.25: .*d_head 16"
        ):
            frontier(
                study(widths=[24], l0_counts=[9], dense_widths=[]), tmp_path / "o", progress=False
            )

    def test_a_floor_above_the_l0_is_refused_before_anything_is_written(
        self, study: Study, settings: Callable[..., dict[str, Any]], tmp_path: Path
    ):
        common = settings()["train"]
        deep = study(l0_counts=[4000], train={**common, "weight_sparsity": {"floor": 4}})
        said = (
            r"^sparse-w32-l4000-a0\.25: a floor of 4 nonzeros per neuron and channel keeps 4,247 "
            r"weights, l0_counts asks for 4,000: ask for at least 4,772, lower "
            r"train\.weight_sparsity\.floor, or leave out width 32$"
        )
        with pytest.raises(InputError, match=said):
            frontier(deep, tmp_path / "o", progress=False)
        assert not (tmp_path / "o").exists()

    def test_a_model_that_had_begun_with_such_a_floor_still_opens(
        self, copy: Path, study: Study, settings: Callable[..., dict[str, Any]]
    ):
        common = settings()["train"]
        deep = study(
            widths=[32], l0_counts=[9000], train={**common, "weight_sparsity": {"floor": 16}}
        )
        check_attainable(grid(deep), deep, copy)  # its folder has the run

    def test_a_folder_of_something_else_is_left_alone(self, study: Study, tmp_path: Path):
        (tmp_path / "thesis.txt").write_text("")
        with pytest.raises(InputError, match="holds files but is no study"):
            frontier(study(), tmp_path, progress=False)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_results_that_were_altered_are_not_drawn(copy: Path):
    path = copy / "results.json"
    path.write_text(path.read_text().replace('"val_loss": ', '"val_loss": 1', 1))
    with pytest.raises(DamagedError, match=r"results\.json is damaged: it does not match its"):
        write_study_figures(copy)


class TestStudyFrontierCommand:
    def test_the_command_prints_the_table_or_one_json_object(
        self, copy: Path, config: FrontierConfig
    ):
        path = copy.parent / "study.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
        result = run_here("study", "frontier", "--config", path, "--out", copy, "--json")
        assert result.returncode == 0, result.stderr
        printed = json.loads(result.stdout)
        assert [row["name"] for row in printed["cells"]] == [SPARSE, DENSE, IMPOSSIBLE]
        assert printed["pair"]["sparse"] == SPARSE
        assert f"warning: {IMPOSSIBLE} failed, the study goes on" in result.stderr

    def test_mistakes_are_one_line_and_code_2(self, tmp_path: Path):
        path, out = tmp_path / "study.yaml", str(tmp_path / "o")
        for settings, words, says in (
            ("widths: []", [out], "the grid is empty"),
            ("dense_widths: [16]", [out, "--tasks", "for_whale"], "did you mean 'for_while'"),
            (
                "dense_widths: [16]",
                [out, "--tasks", "for_while", "var_of"],
                "did you mean 'var_if'",
            ),
            ("dense_widths: [16]", ["/proc/nowhere"], "cannot write /proc/nowhere"),
            ("dense_widths: [16]", [str(path)], "cannot write"),
            ("dense_widths: [16]", [out, "--target-losses", "0"], "target_losses"),
            ("train: {modle: {}}", [out], "unknown setting 'train.modle'; did you mean 'model'"),
            ("train: {data: {corpus: /none}}\ndense_widths: [16]", [out], "/none"),
        ):
            path.write_text(settings)
            ended = run_here("study", "frontier", "--config", path, "--out", *words)
            assert ended.returncode == 2
            assert ended.stdout == ""
            line = ended.stderr.splitlines()[-1]
            assert says in line
            assert line.startswith("wirework: ")
        assert not list((tmp_path / "o").glob("cells/*"))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("number", "stage"),
        [
            (signal.SIGTERM, "circuits/4/for_while.search"),
            (signal.SIGINT, "run/metrics.jsonl"),
        ],
    )
    def test_a_signal_ends_a_study_with_one_line_and_its_code(
        self,
        settings: Callable[..., dict[str, Any]],
        start: Callable[..., Started],
        tmp_path: Path,
        number: signal.Signals,
        stage: str,
    ):
        values = settings(dense_widths=[])
        if stage.startswith("run"):
            values["train"] |= {"steps": 10**6, "log_every": 1}
        else:
            values["prune"] |= {"steps": 10**6}
        path, out = tmp_path / "study.yaml", tmp_path / "out"
        path.write_text(yaml.safe_dump(values))
        cell = out / "cells" / SPARSE
        child = start("study", "frontier", "--config", path, "--out", out)
        while not (cell / stage).exists():
            assert child.poll() is None, child.communicate(1)
            time.sleep(0.05)
        time.sleep(0.5)
        for _ in range(3):  # an impatient person's
            child.send_signal(number)
            time.sleep(0.05)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 128 + number, errors
        assert errors.splitlines()[-1] == (
            f"wirework: stopped in {SPARSE} of {out}; the same command goes on from what was saved"
        )
        assert not (cell / "cell.json").exists()
        assert (cell / "run" / "model").exists() != stage.startswith("run")
        assert list((cell / "run" / "checkpoints").glob("step-*"))


def stamps(folder: Path) -> dict[str, int]:
    """Return when each file of the models was last written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.glob("cells/**/*")
        if path.is_file() and path.name not in ("lock", "failed.json")
    }
