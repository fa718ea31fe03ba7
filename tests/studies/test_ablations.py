"""The study of training choices: its models, its table by hand, and a tiny run from end to end."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wirework.config import AblationsConfig, TrainConfig
from wirework.errors import InputError
from wirework.files import read_json, read_record
from wirework.studies import ablations
from wirework.studies.ablation_choices import changed_settings, choices, chosen, described
from wirework.studies.ablation_rows import choice_rows, markdown_table
from wirework.studies.ablations import points, training_settings

RECIPE = Path(__file__).parents[2] / "recipes" / "ablations.yaml"


@pytest.fixture
def study(settings: Callable[..., dict[str, Any]]) -> Callable[..., AblationsConfig]:
    """Return `study(**changes)`: two choices, one task, a target that any model reaches."""

    def make(**changes: Any) -> AblationsConfig:
        small = settings()
        values = {name: small[name] for name in ("train", "prune", "tasks")}
        values["train"] = {
            **values["train"],
            "model": {**values["train"]["model"], "d_model": 16},
            "weight_sparsity": {"l0_fraction": 0.2, "floor": 1},
        }
        return AblationsConfig.of({**values, "only": ["floor-0", "smooth-l0-1e-6"], **changes})

    return make


def test_every_choice_of_the_recipe_is_possible_and_changes_one_thing():
    recipe = AblationsConfig.load(RECIPE)
    models = points(recipe)
    assert len({point.name for point in models}) == len(models) >= 50
    for point in models:
        config = training_settings(point, recipe, "out")
        groups = {name.split(".")[0] for name in point.values}
        assert len(groups - {"weight_sparsity"}) <= 1 or "hard_concrete" in groups, point.name
        assert config.seed == point.seed


@pytest.mark.parametrize(
    "topic",
    ["eps", "rms", "warmup", "no-sharkfin", "anneal", "floor", "no-sinks", "positions", "act",
     "sites", "smooth-l0", "revival"],
)  # fmt: skip
def test_the_choices_cover_each_topic(topic: str):
    assert any(name.startswith(topic) for name in choices(AblationsConfig.load(RECIPE).train))


def test_a_choice_that_is_the_base_s_own_is_left_out():
    names = choices(TrainConfig(optimizer={"warmup": 0.05}))
    assert "warmup-0.05" not in names
    assert "rms-normalise" not in names
    assert {"warmup-0", "rms-clip", "floor-0"} <= names.keys()


def test_a_choice_is_described_by_its_settings():
    base = TrainConfig()
    assert described(base, {"optimizer.eps": 1e-8}) == "optimizer.eps: 0.1 -> 1e-08"
    assert described(base, {"revival": {}}) == "revival: None -> set"
    changed = changed_settings(base, {"weight_sparsity.floor": 0})
    assert changed.weight_sparsity is not None
    assert changed.weight_sparsity.floor == 0
    assert changed.weight_sparsity.l0_fraction == 1 / 64


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"weight_sparsity": {"anneal_start": 0.2}}, "anneal-0.1"),
        ({"weight_sparsity": {"gradient": "live"}}, "revival"),
    ],
)
def test_impossible_choices_are_left_out(
    settings: dict[str, Any], left_out: str, capsys: pytest.CaptureFixture[str]
):
    base = TrainConfig.of(settings)
    assert left_out not in choices(base)
    assert "floor-0" in choices(base)
    assert f"{left_out} is left out, since it is impossible" in capsys.readouterr().err
    with pytest.raises(InputError, match="or impossible with its settings"):
        chosen(base, (left_out,))


def test_positions_of_a_base_with_concatenated_ones_are_possible():
    base = TrainConfig.of({"model": {"positions": "concat", "d_pos": 16}})
    assert {"positions-added", "positions-sinusoidal"} <= choices(base).keys()
    assert "positions-concat" not in choices(base)


def test_named_choices_come_with_the_base_and_others_are_refused():
    assert list(chosen(TrainConfig(), ("floor-0",))) == ["base", "floor-0"]
    with pytest.raises(InputError, match=r"no choice 'flor-0'.*did you mean 'floor-0'"):
        chosen(TrainConfig(), ("flor-0",))


def cell(choice: str, seed: int, loss: float, sizes: dict[str, int | None]) -> dict[str, Any]:
    tasks = [
        {"task": task, "reached": size is not None, "n_edges": size or 0}
        for task, size in sizes.items()
    ]
    about = {"choice": choice, "changes": "", "seed": seed, "val_loss": loss}
    return {**about, "nonzero_fraction": 0.25, "tasks": tasks}


def test_rows_worked_by_hand():
    cells = [
        cell("base", 0, 3.0, {"a": 4, "b": 10}),
        cell("base", 1, 3.5, {"a": 16, "b": None}),
        cell("worse", 0, 13.75, {"a": 8, "b": None}),
        cell("worse", 1, 14.25, {"a": 8, "b": 7}),
        cell("better", 0, -12.5, {"a": None, "b": None}),
        cell("same", 0, 3.5, {"a": 4, "b": 40}),
        {"choice": "bad", "changes": "x", "seed": 0, "error": "NaN"},
    ]
    base, worse, better, same, bad = choice_rows(cells)
    assert (base.val_loss, base.val_loss_low, base.val_loss_high) == (3.25, 3.0, 3.5)
    assert (base.loss_change, base.loss_verdict, base.edge_ratio) == (None, "", None)
    assert (base.n_circuits, base.n_searched) == (3, 4)
    assert base.edges == pytest.approx(640 ** (1 / 3))
    assert (base.edges_low, base.edges_high) == pytest.approx((40**0.5, 16))
    assert (worse.loss_change, worse.loss_verdict) == (10.75, "worse")
    # Shared: a of seed 0 (8 against 4) and a of seed 1 (8 against 16).
    assert (worse.edge_ratio, worse.n_compared) == (pytest.approx(1.0), 2)
    assert (better.loss_verdict, better.edges, better.edge_ratio) == ("better", None, None)
    assert same.loss_verdict == "within spread"
    assert same.edge_ratio == pytest.approx(2.0)
    assert (bad.n_seeds, bad.error, bad.val_loss) == (0, "NaN", None)
    table = markdown_table([base, worse, bad]).splitlines()
    assert table[3] == (
        "| worse | - | 2 | 14.0000 (13.7500 to 14.2500) | +10.7500 | worse | 0.25 | 3 of 4 | "
        "7.65 (7.48 to 8) | 1 (2) |"
    )
    assert "NaN" in table[4]


def test_settings_that_cannot_be_are_refused(study, tmp_path: Path):
    with pytest.raises(InputError, match="seeds must be two or more"):
        study(seeds=[0])
    with pytest.raises(InputError, match="the base model is weight-sparse"):
        study(train={"weight_sparsity": None})
    with pytest.raises(InputError, match="no choice 'nothing'"):
        ablations(study(only=["nothing"]), tmp_path / "s", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is no study of ablations"):
        ablations(study(), tmp_path / "mine", progress=False)
    assert not (tmp_path / "s").exists()


def test_a_tiny_study_runs_resumes_and_takes_further_choices(study, tmp_path: Path):
    out = tmp_path / "s"
    result = ablations(study(), out, progress=False)
    assert [row.choice for row in result.rows] == ["base", "floor-0", "smooth-l0-1e-6"]
    for row in result.rows:
        assert row.n_seeds == 2
        assert row.val_loss is not None
        assert row.n_circuits == row.n_searched == 2
    assert result.rows[0].nonzero_fraction == pytest.approx(0.2, abs=0.01)
    names = {path.name for path in out.iterdir()}
    assert {"manifest.json", "results.json", "table.md", "ablations.png", "cells"} <= names
    assert read_json(out / "manifest.json")["models"][2]["name"] == "floor-0-seed0"
    # A lost record is made again from what its folder has; the others are read.
    cells = out / "cells"
    kept = (cells / "base-seed1" / "cell.json").stat().st_mtime_ns
    (cells / "base-seed0" / "cell.json").unlink()
    shutil.rmtree(cells / "base-seed0" / "circuits")
    again = ablations(study(only=["floor-0", "no-sinks"]), out, progress=False)
    assert [row.choice for row in again.rows] == ["base", "floor-0", "no-sinks"]
    assert again.rows[0] == result.rows[0]
    assert again.rows[1] == result.rows[1]
    assert (cells / "base-seed1" / "cell.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("error", "says"),
    [(InputError("NaN or infinity at step 3"),) * 2, (MemoryError(), "MemoryError")],
    ids=["loss", "memory"],
)
def test_a_choice_that_fails_is_a_row_with_its_reason(
    study, tmp_path: Path, monkeypatch, capsys, error: Exception, says: Any
):
    import sys

    module = sys.modules[ablations.__module__]
    real = module.train

    def failing(config: TrainConfig, **options: Any) -> Any:
        if config.weight_sparsity is not None and config.weight_sparsity.floor == 0:
            raise error
        return real(config, **options)

    monkeypatch.setattr(module, "train", failing)
    result = ablations(study(only=["floor-0"], tasks=["for_while"]), tmp_path / "s", progress=True)
    assert result.rows[1].error == str(says)
    assert "floor-0-seed0 failed, the study goes on" in capsys.readouterr().err
    assert not (tmp_path / "s" / "cells" / "floor-0-seed0" / "cell.json").exists()
    assert read_record(tmp_path / "s" / "results.json")["rows"][1]["val_loss"] is None
