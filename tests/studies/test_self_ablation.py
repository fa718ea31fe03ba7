"""The study on tiny models of real stories: it runs, goes on, and says what it found."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from wirework.config import SelfAblationConfig, TrainConfig
from wirework.errors import InputError
from wirework.files import read_record, write_record
from wirework.studies import self_ablation
from wirework.studies.ablation_table import (
    MeasuredVerdict,
    SeedMean,
    claims,
    csv_table,
    markdown_table,
    rows_of,
)
from wirework.studies.self_ablation import SelfAblationResult, variants

VOCABULARY = 800
RECIPES = Path(__file__).parents[2] / "recipes"
OF_SAE_LENS = pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")


def tiny(cache: Path, **changes: Any) -> SelfAblationConfig:
    values: dict[str, Any] = {
        "levels": ["local"], "ks": [2], "seeds": [0],
        "train": {
            "steps": 6, "batch_size": 4, "precision": "float32", "eval_batches": 2,
            "weight_sparsity": None, "checkpoint_every": 3,
            "model": {
                "vocab_size": VOCABULARY, "n_ctx": 64, "n_layer": 2, "d_model": 32, "d_head": 8,
                "act_fraction": None, "bigram": False,
            },
            "data": {
                "corpus": "stories", "max_bytes": 600_000, "vocab_size": VOCABULARY,
                "tokenizer_bytes": 600_000, "workers": 1, "cache": cache, "val_fraction": 0.1,
            },
        },
        "measure": {
            "n_tokens": 512, "acdc": {"pairs": 4},
            "sae": {"tokens": 5120, "eval_tokens": 512, "expansion": 2, "buffer": 2048},
            "explain": {"neurons": 4, "explain_excerpts": 64, "score_excerpts": 64},
        },
    }  # fmt: skip
    return SelfAblationConfig.of({**values, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, SelfAblationResult]:
    out = tmp_path_factory.mktemp("study") / "s"
    return out, self_ablation(tiny(cache), out, progress=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the models in this process: another has to load torch and sae-lens first."""
    module = sys.modules[self_ablation.__module__]
    monkeypatch.setattr(module, "parallel_map", lambda work, items, jobs: map(work, items))


class TestSelfAblation:
    @pytest.mark.slow
    def test_each_model_has_every_number(self, done: tuple[Path, SelfAblationResult]) -> None:
        out, result = done
        plain, gated = result.rows
        assert (plain.level, gated.level, gated.k) == (None, "local", 2)
        for name in ("path_edges", "sae_l0", "explanation_score", "perplexity", "mean_abs_weight"):
            assert plain.measures[name].n == gated.measures[name].n == 1, name
        assert plain.measures["gate_live_fraction"].mean is None
        live = (2 + 2) / (32 + 128)
        assert gated.measures["gate_live_fraction"].mean == pytest.approx(live, rel=1e-6)
        assert gated.measures["path_edges"].paper == 54
        assert result["rows"][1]["path_edges"]["paper"] == 54  # by key, for one release
        names = {path.name for path in out.iterdir()}
        assert names == {
            "results.json", "table.md", "table.csv", "self_ablation.png", "cells", "runs",
        }  # fmt: skip
        held = json.loads((out / "results.json").read_text())
        assert [cell["name"] for cell in held["cells"]] == ["plain-seed0", "local-k2-seed0"]
        assert "/tmp" not in json.dumps(held["config"])

    @pytest.mark.slow
    @OF_SAE_LENS
    @pytest.mark.usefixtures("here")
    def test_a_finished_study_only_draws_and_a_lost_report_is_made_again(
        self, done: tuple[Path, SelfAblationResult], cache: Path, tmp_path: Path
    ) -> None:
        out, result = done
        again = tmp_path / "s"
        shutil.copytree(out, again)
        (again / "cells" / "local-k2-seed0.json").unlink()
        before = (again / "cells" / "plain-seed0.json").stat().st_mtime_ns
        (again / "table.md").unlink()
        assert self_ablation(tiny(cache), again, progress=False).rows == result.rows
        assert (again / "cells" / "plain-seed0.json").stat().st_mtime_ns == before
        assert (again / "table.md").read_text() == (out / "table.md").read_text()

    @pytest.mark.slow
    @OF_SAE_LENS
    @pytest.mark.usefixtures("here")
    def test_an_instrument_that_gave_a_reason_is_tried_again(
        self, done: tuple[Path, SelfAblationResult], cache: Path, tmp_path: Path
    ) -> None:
        out, result = done
        again = tmp_path / "s"
        shutil.copytree(out, again)
        path = again / "cells" / "plain-seed0.json"
        cell = read_record(path)
        cell["report"] |= {"sae": {"reason": "no sae-lens"}}
        cell["report"]["headline"] |= {"sae_l0": None, "ce_score": None, "perplexity": -1.0}
        cell["report"]["language"]["perplexity"] = -1.0  # so that the others are seen to be kept
        write_record(path, cell)
        plain = self_ablation(tiny(cache), again, progress=False).rows[0]
        assert plain.measures["sae_l0"] == result.rows[0].measures["sae_l0"]
        assert plain.measures["perplexity"].mean == -1

    def test_what_cannot_be_is_refused_before_anything_is_trained(
        self, cache: Path, tmp_path: Path
    ) -> None:
        for changes, says in (
            ({"ks": [2, 32]}, "local-k32-seed0: k_attention must be below the model's 32 units"),
            ({"measure": {"task": "ioo"}}, "ioo"),
            ({"measure": {"sae": {"site": "7.mlp.resid_delta"}}}, "no site '7.mlp.resid_delta'"),
            ({"measure": {"explain": {"only": ["0.mlp.post_act.512"]}}}, "0 .. 127, got 512"),
            (
                {"measure": {"explain": {"excerpt_tokens": 65}}},
                "more than the model's context of 64",
            ),
        ):
            with pytest.raises(InputError, match=says):
                self_ablation(tiny(cache, **changes), tmp_path / "s", progress=False)
        assert not (tmp_path / "s").exists()
        foreign = tmp_path / "foreign.jsonl"
        foreign.write_text('{"prompts": ["a b", "b a"], "answers": [" qxqx", " zqzq"]}')
        with pytest.raises(InputError, match="token"):
            self_ablation(
                tiny(cache, measure={"task": str(foreign)}), tmp_path / "t", progress=False
            )
        assert not (tmp_path / "t" / "runs").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="is no study of self-ablation"):
            self_ablation(tiny(cache), tmp_path / "mine", progress=False)
        refused: dict[str, Any]
        for refused in ({"ks": [2, 2]}, {"seeds": []}, {"measure": {"acdc": {"tau": [0.1, 0.2]}}}):
            with pytest.raises(InputError):
                tiny(cache, **refused)
        train = tiny(cache).train.model_dump()
        with pytest.raises(
            InputError, match=r"train.gating.k_neurons is each model's own: give level"
        ):
            tiny(cache, train={**train, "gating": {"k_neurons": 3}})
        assert (
            tiny(cache, train={**train, "gating": {"ablated_coef": 0.1}}).train.gating is not None
        )

    @pytest.mark.slow
    def test_other_settings_do_not_take_a_study_s_place(
        self, done: tuple[Path, SelfAblationResult], cache: Path
    ) -> None:
        out, _ = done
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "lock"}
        measure = tiny(cache).measure.model_dump()
        train = tiny(cache).train.model_dump()
        for changes, says in (
            ({"ks": [3]}, r"has models of ks \[2\], which this call leaves out"),
            ({"seeds": [1]}, r"has models of seeds \[0\]"),
            (
                {"measure": {**measure, "n_tokens": 600}},
                r"settings, measure.n_tokens: 512 -> 600: ch",
            ),
            (
                {"train": {**train, "steps": 7}},
                r"other settings, train.steps: 6 -> 7: choose another",
            ),
            ({"train": {**train, "gating": {"epsilon": 1e-9}}}, r"train.gating: None -> set"),
        ):
            with pytest.raises(InputError, match=says):
                self_ablation(tiny(cache, **changes), out, progress=False)
        assert before == {path: path.stat().st_mtime_ns for path in before}

    @pytest.mark.slow
    @OF_SAE_LENS
    @pytest.mark.usefixtures("here")
    def test_settings_that_change_nothing_and_a_study_of_nothing_yet_are_no_hindrance(
        self, done: tuple[Path, SelfAblationResult], cache: Path, tmp_path: Path
    ) -> None:
        out, result = done
        again = tmp_path / "s"
        shutil.copytree(out, again)
        train, measure = tiny(cache).train.model_dump(), tiny(cache).measure.model_dump()
        measure["explain"]["excerpt_tokens"] = 64  # what is taken by default
        other = tiny(cache, train={**train, "log_every": 7, "keep_checkpoints": 1}, measure=measure)
        assert self_ablation(other, again, progress=False).rows == result.rows
        held = read_record(again / "results.json")
        assert held["config"]["measure"]["explain"]["excerpt_tokens"] == 64
        (again / "results.json").write_text(json.dumps({**held, "data": "other"}))
        with pytest.raises(InputError, match="made with other text or tokeniser"):
            self_ablation(tiny(cache), again, progress=False)
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / ".table.md.12.partial").touch()  # a kill left it
        (empty / "results.json").write_text(json.dumps({**held, "cells": []}))
        small = tiny(
            cache, train={**train, "steps": 2}, measure={**measure, "instruments": ["language"]}
        )
        (first, _) = self_ablation(small, empty, progress=False).rows
        assert first.measures["perplexity"].n == 1
        frontier = tmp_path / "frontier"
        frontier.mkdir()
        altered = (out / "results.json").read_text().replace('"data": "', '"data": "0')
        unsettled = json.dumps({**held, "config": {"train": {}}})
        for text in ('{"cells": [1]}', "[]", "mine", altered, unsettled):
            (frontier / "results.json").write_text(text)
            with pytest.raises(InputError, match="is no study of self-ablation"):
                self_ablation(tiny(cache), frontier, progress=False)

    def test_a_missing_package_is_said_before_models_are_trained(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "sae_lens", None)
        with pytest.raises(InputError, match="need sae-lens"):
            self_ablation(tiny(cache), tmp_path / "s", progress=False)
        assert not (tmp_path / "s").exists()


def test_the_recipe_of_stories_is_the_study_s_plain_model() -> None:
    study = SelfAblationConfig.load(RECIPES / "self_ablation.yaml")
    plain = TrainConfig.load(RECIPES / "stories.yaml")
    assert plain.model_copy(update={"name": study.train.name}) == study.train


def test_the_first_seed_comes_first(cache: Path) -> None:
    names = [one.name for one in variants(tiny(cache, seeds=[3, 5], ks=[1, 2]))]
    assert names[:3] == ["plain-seed3", "local-k1-seed3", "local-k2-seed3"]
    assert names[3:] == ["plain-seed5", "local-k1-seed5", "local-k2-seed5"]


def cell(level: str | None, k: int | None, **numbers: float | None) -> dict[str, Any]:
    empty = dict.fromkeys(
        ("path_edges", "task_accuracy", "sae_l0", "ce_score", "explanation_score", "perplexity",
         "mean_abs_weight", "mean_abs_weight_embedded", "gate_live_fraction", "dead_units")
    )  # fmt: skip
    return {"level": level, "k": k, "report": {"headline": empty | numbers}}


def test_the_table_is_worked_by_hand() -> None:
    cells = [
        cell(None, None, path_edges=100, perplexity=5.0),
        cell(None, None, path_edges=104, perplexity=5.2),
        cell("local", 4, path_edges=40, perplexity=5.1),
        cell("local", 4, path_edges=44, perplexity=5.1),
        cell("global", 4, path_edges=103, perplexity=None),
        cell("global", 4, path_edges=91, perplexity=6.0),
    ]
    plain, local, whole = rows_of(cells)
    assert plain.measures["path_edges"] == SeedMean(102, 2.0, 2, 79)
    assert plain.to_dict() == {"level": None, "k": None} | {
        name: mean.to_dict() for name, mean in plain.measures.items()
    }
    assert local.measures["path_edges"].paper == 30
    assert whole.measures["perplexity"] == SeedMean(6.0, None, 1, 6.73)
    edges, features, _, price, _ = claims([plain, local, whole])
    assert isinstance(edges, MeasuredVerdict)
    assert isinstance(price, MeasuredVerdict)
    # 102 - 42 = 60 with an error of sqrt(8); 102 - 97 = 5 with one of sqrt(4 + 36).
    assert edges.in_direction == edges.settings == 2
    assert edges.beyond_two_standard_errors == 1
    assert edges.verdict == "held in part"
    assert edges.largest_change == pytest.approx(60 / 102)
    assert features.to_dict() == {"claim": features.claim, "verdict": "not measured"}
    # Of local gates no change, of global ones one that a single seed cannot vouch for.
    assert (price.in_direction, price.beyond_two_standard_errors) == (1, 0)
    assert price.verdict == "did not show"
    assert claims([plain, local])[0].verdict == "held"
    single = rows_of([cell(None, None, path_edges=9), cell("local", 4, path_edges=8)])
    assert claims(single)[0].verdict == "cannot tell: too few seeds"
    none = rows_of([cell(None, None, path_edges=0)] * 2 + [cell("local", 4, path_edges=0)] * 2)
    assert claims(none)[0].verdict == "cannot tell: the plain model has none"
    near = [cell(None, None, perplexity=p) for p in (5.0, 5.4)]
    near += [cell("local", 4, perplexity=p) for p in (5.1, 5.5)]
    assert claims(rows_of(near))[3].verdict == "did not show"
    worse = rows_of(
        [*cells[:2], cell("local", 4, path_edges=120), cell("local", 4, path_edges=121)]
    )
    assert claims(worse)[0].verdict == "did not hold"
    assert claims([local]) == []
    lines = markdown_table([plain, local]).splitlines()
    assert lines[2].startswith("| none | - | 2 | 102 ± 2 (79) | - |")
    table = list(csv.DictReader(csv_table([plain, local]).splitlines()))
    assert table[1]["path_edges_mean"] == "42"
    assert table[0]["level"] == "none"
