"""How long the demo trains: what fits the time, settled once, never less than the task needs."""

import math
import time

import pytest

from wirework import demo_plan
from wirework.config import TrainConfig
from wirework.console import Progress, rescaled
from wirework.demo_plan import (
    FEWEST_STEPS,
    Plan,
    fitting_steps,
    make_plan,
    stage_ends,
    tokens_per_second,
)
from wirework.errors import InputError
from wirework.files import write_record


@pytest.fixture
def speeds(monkeypatch):
    """Return a list of the speeds that will be measured of both models."""
    found = [6000.0, 9000.0]
    monkeypatch.setattr(demo_plan, "parallel_map", lambda *_, **__: iter(found))
    return found


def settings(out, name="demo", steps=5000):
    values = {"runs": str(out), "name": name, "steps": steps, "batch_size": 16}
    return TrainConfig.of({**values, "model": {"n_ctx": 64}})


def plan(out, minutes=10.0, steps=5000):
    sparse, dense = (settings(out, name, steps) for name in ("demo", "demo-dense"))
    return make_plan(sparse, dense, out, minutes, time.monotonic())


class TestFittingSteps:
    def test_are_the_recipe_s_on_a_quick_machine(self):
        assert fitting_steps(5000, 1024, 20_000, 560)[0] == 5000

    def test_fit_the_time_on_a_slow_one(self):
        steps, needed = fitting_steps(5000, 1024, 5400, 560)
        assert FEWEST_STEPS < steps < 5000
        assert needed < 560

    def test_are_never_fewer_than_the_task_needs(self):
        steps, needed = fitting_steps(5000, 1024, 1000, 560)
        assert steps == FEWEST_STEPS
        assert needed > 560
        assert fitting_steps(30, 1024, 1000, 560)[0] == 30


class TestPlan:
    def test_goes_by_the_slower_model(self, tmp_path, speeds):
        assert plan(tmp_path).tokens_per_s == 6000
        assert plan(tmp_path).shortened

    def test_is_kept_by_a_demo_that_goes_on(self, tmp_path, speeds, capsys):
        first = plan(tmp_path)
        speeds[:] = [60_000.0, 60_000.0]
        assert plan(tmp_path) == first
        capsys.readouterr()
        assert plan(tmp_path, minutes=20) == first
        assert "other minutes are for another --out" in capsys.readouterr().err

    def test_of_another_recipe_is_made_anew(self, tmp_path, speeds):
        assert plan(tmp_path).steps_of_recipe == 5000
        assert plan(tmp_path, steps=6000).steps_of_recipe == 6000

    def test_keeps_the_steps_of_a_run_that_has_begun_without_one(self, tmp_path, speeds):
        run = tmp_path / "demo-dense"
        run.mkdir()
        (run / "config.yaml").write_text(settings(tmp_path, steps=4321).to_yaml())
        assert plan(tmp_path).steps == 4321

    def test_takes_few_steps_as_they_are(self, tmp_path, monkeypatch):
        monkeypatch.setattr(demo_plan, "parallel_map", None)
        assert plan(tmp_path, steps=3).steps == 3

    def test_more_minutes_are_more_steps(self, tmp_path, speeds):
        assert plan(tmp_path / "a", minutes=9).steps < plan(tmp_path / "b", minutes=12).steps

    def test_says_in_one_line_that_the_time_is_too_short(self, tmp_path, speeds, capsys):
        speeds[:] = [1000.0, 1000.0]
        assert plan(tmp_path).steps == FEWEST_STEPS
        warnings = [one for one in capsys.readouterr().err.splitlines() if "warning" in one]
        assert len(warnings) == 1
        assert "take about" in warnings[0]

    @pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf])
    def test_refuses_minutes_that_are_none(self, tmp_path, minutes):
        with pytest.raises(InputError, match="minutes must be a positive number"):
            plan(tmp_path, minutes=minutes)


@pytest.mark.usefixtures("one_thread")
def test_the_speed_is_that_of_real_training_which_leaves_nothing(corpus, tmp_path):
    config = TrainConfig.of(
        {
            "runs": str(tmp_path / "runs"),
            "batch_size": 2,
            "model": {"vocab_size": 400, "n_ctx": 16, "n_layer": 1, "d_model": 32, "d_head": 8},
            "data": {"corpus": str(corpus), "vocab_size": 400, "cache": str(tmp_path / "data")},
            "weight_sparsity": {"l0_fraction": 0.15, "floor": 2},
        }
    )
    assert tokens_per_second(config) > 0
    assert not (tmp_path / "runs").exists()


def test_a_plan_of_another_make_is_one_line(speeds, tmp_path):
    plan(tmp_path, minutes=10)
    assert plan(tmp_path, minutes=10).minutes == 10
    write_record(tmp_path / "demo.json", {"steps": 5})
    with pytest.raises(InputError, match=r"demo\.json is damaged: expected 'steps_of_recipe'"):
        plan(tmp_path)


@pytest.mark.parametrize(
    ("steps", "ends"),
    [
        (1000, (100, 130, 130, 133)),  # a million tokens at 10,000 a second; pruning is as 300,000
        (20_000, (2000, 2030, 2100, 2103)),  # the dense model takes a twentieth longer
    ],
)
def test_the_stages_of_a_demo_take_what_the_measured_speed_says(steps, ends):
    config = TrainConfig.of({"batch_size": 20, "model": {"n_ctx": 50}})
    plan = Plan(steps=steps, steps_of_recipe=20_000, minutes=10.0, tokens_per_s=10_000.0)
    assert stage_ends(plan, config) == pytest.approx(ends)


def test_the_time_left_of_a_demo_is_rescaled_by_what_the_parts_before_took():
    config = TrainConfig.of({"batch_size": 20, "model": {"n_ctx": 50}})
    ends = stage_ends(Plan(1000, 1000, 10.0, 10_000.0), config)
    now = 0.0
    with Progress("demo", None, shown=False, alone=True, clock=lambda: now) as bar:
        now = 40.0  # preparation
        bar.stage(ends.training, total=ends.page)
        bar.update(0)
        now += 150
        bar.update(50)  # half of the training, 50 s, took three times as long
        assert bar.time() == "about 4 min left"  # (133 - 50) * 3 = 249 s
        now += 50
        bar.update(100)  # the other half took its 50 s: 100 took 200
        assert rescaled(33, 100, 200) == 66
        now += 600  # the time left is smoothed over a minute
        bar.update(128)
        assert bar.time() == "about 30 s left"  # 5 * 800 / 128 = 31 s
