"""Killed anywhere and resumed, a run ends bitwise where it would have."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from marks import slow_cases
from safetensors.torch import load_file

from wirework.training import Interrupted, Prior, train
from wirework.training.checkpoint import checkpoint_steps
from wirework.training.make_priors import make_priors
from wirework.training.metrics import read_metrics

PREPARED = "wirework.training.job:text_for_runs"
EVALUATE = "wirework.training.loop:evaluate_batches"
STEP = "wirework.training.loop:scale_gradients_"
SAVE = "wirework.training.loop:save_checkpoint"
CLEAN = "wirework.training.loop:prune_checkpoints"
SETTINGS = "wirework.training.job:write_settings"
MODEL = "wirework.training.loop:measured_nonzero_fraction"


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, Any]], str]:
    """Return all that must not differ: last checkpoint's tensors and state, log, settings."""
    newest = max((run / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))
    state = json.loads((newest / "state.json").read_text())
    del state["seconds"], state["settings"], state["metrics_bytes"]
    lines = read_metrics(run / "metrics.jsonl")
    for line in lines:
        del line["timing"]
    tensors = load_file(newest / "tensors.safetensors")
    model = load_file(run / "model" / "model.safetensors")
    return tensors | {f"saved {k}": v for k, v in model.items()}, state, lines, newest.name


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes: -0.0 and 0.0 differ."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_same(run: Path, other: Path) -> None:
    (tensors, *rest), (expected, *others) = outcome(run), outcome(other)
    assert rest == others
    assert tensors.keys() == expected.keys()
    different = [k for k, v in tensors.items() if not torch.equal(bits(v), bits(expected[k]))]
    assert different == []
    hidden = [p for p in run.rglob(".*") if p.name.endswith((".partial", ".stale"))]
    assert hidden == []


class DeathError(RuntimeError):
    pass


class Noisy(Prior):
    """A prior that draws random numbers, and may die after the update of a step."""

    def __init__(self, last_step: int | None = None) -> None:
        self.last_step = last_step

    def loss(self, clean, tokens, targets):
        found = clean()
        return {**found, "total": found["total"] * (1 + torch.rand(()))}

    def after_step(self, step):
        if step == self.last_step:
            raise DeathError
        return {"draw": torch.rand(()).item()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "deaths",
    [[1, 8, 13, 24, 30], pytest.param(range(1, 31), marks=pytest.mark.slow)],
    ids=["some", "every"],
)
def test_every_step_can_be_the_last(settings, monkeypatch, tmp_path, deaths):
    changes: dict[str, Any] = {"steps": 31, "eval_every": 12, "eval_batches": 1}
    changes["checkpoint_every"] = 8
    changes["bigram_start"] = "counts"
    changes["optimizer"] = {"grad_scale": "none", "eps": 1e-3}  # so that the noise tells

    def use(prior: Noisy) -> None:
        monkeypatch.setattr(
            "wirework.training.job.make_priors", lambda *given: [*make_priors(*given), prior]
        )

    use(Noisy())
    uninterrupted = train(settings("uninterrupted", **changes), progress=False)
    config = settings("killed", **changes)
    for k in deaths:
        use(Noisy(last_step=k))
        with pytest.raises(DeathError):
            train(config, resume=k > 1, progress=False)
        # What is left goes on to the end elsewhere; the run itself only to its next death.
        elsewhere = config.model_copy(update={"runs": tmp_path / f"after-{k}"})
        shutil.copytree(config.runs / config.name, elsewhere.runs / config.name)
        use(Noisy())
        assert_same(train(elsewhere, resume=True, progress=False).path, uninterrupted.path)


@pytest.mark.slow
def test_a_killed_process_leaves_what_resume_needs(settings, whole, driver, tmp_path):
    # Some 150 file operations make a run; a different sample of them in each place of the run.
    generator = random.Random(0)
    for event in sorted(generator.sample(range(1, 150), 6)):
        config = settings(f"at-{event}")
        job = {"event": event, "signals": [signal.SIGKILL]}
        assert driver.run(config, tmp_path / "err", **job) == -signal.SIGKILL
        assert driver.run(config, tmp_path / "err", resume=True) == 0
        assert_same(config.runs / config.name, whole.path)


@pytest.mark.parametrize(
    ("call", "nth"),
    [(SAVE, 2), *slow_cases((EVALUATE, 2), (STEP, 6), (CLEAN, 3), (MODEL, 1))],
)
def test_a_process_killed_in_each_phase_is_resumed(settings, whole, driver, tmp_path, call, nth):
    config = settings("killed")
    killed = driver.run(config, tmp_path / "err", call=call, nth=nth, signals=[signal.SIGKILL])
    assert killed == -signal.SIGKILL
    assert driver.run(config, tmp_path / "err", resume=True) == 0
    assert_same(config.runs / config.name, whole.path)


@pytest.mark.parametrize("resume", [False, *slow_cases(True)])
def test_a_run_killed_between_its_text_and_its_settings_begins_with_that_text(
    settings, whole, driver, corpus, tmp_path, resume
):
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    config = settings("killed", data={"corpus": str(own), "cache": str(tmp_path / "data")})
    err = tmp_path / "err"
    assert driver.run(config, err, call=SETTINGS, signals=[signal.SIGKILL]) == -signal.SIGKILL
    folder = config.runs / config.name
    assert sorted(path.name for path in folder.iterdir()) == ["data.json", "lock"]
    prepared = sorted((tmp_path / "data").iterdir())
    (own / "more.py").write_text("value = 1\n" * 500)  # prepared again, it would be another text
    assert driver.run(config, err, resume=resume) == 0
    assert sorted((tmp_path / "data").iterdir()) == prepared
    assert_same(folder, whole.path)


def test_a_run_killed_again_and_again_gets_there(settings, whole, driver, tmp_path):
    config = settings("killed")
    generator = random.Random(1)
    for _ in range(4):
        job = {"event": generator.randrange(20, 60), "signals": [signal.SIGKILL], "resume": True}
        assert driver.run(config, tmp_path / "err", **job) in (-signal.SIGKILL, 0)
    assert driver.run(config, tmp_path / "err", resume=True) == 0
    assert_same(config.runs / config.name, whole.path)


@pytest.mark.parametrize("number", [signal.SIGTERM, *slow_cases(signal.SIGINT)])
@pytest.mark.parametrize(
    ("call", "nth", "said"),
    [
        (PREPARED, 1, "nothing is lost"),
        (STEP, 6, "stopped at step 6 of 12, saved"),
        (SAVE, 1, "stopped at step 4 of 12, saved"),
        *slow_cases(
            (STEP, 1, "stopped at step 1 of 12, saved"),
            (EVALUATE, 2, "stopped at step 6 of 12, saved"),
            (CLEAN, 2, "stopped at step 8 of 12, saved"),
            (MODEL, 1, "is finished"),
        ),
    ],
)
def test_a_signal_saves_and_exits_in_every_phase(
    settings, whole, driver, tmp_path, number, call, nth, said
):
    config = settings("stopped")
    err = tmp_path / "err"
    # The second signal comes with the next call, while the first is being served.
    code = driver.run(config, err, call=call, nth=nth, signals=[number, number])
    assert code == 128 + number
    lines = err.read_text().splitlines()
    assert len([line for line in lines if "warning" not in line]) == 1
    assert said in lines[-1]
    assert driver.run(config, err, resume=True) == 0
    assert_same(config.runs / config.name, whole.path)


def test_a_checkpoint_is_written_once(settings, driver, tmp_path):
    # Stopped in the evaluation before the checkpoint of step 4, which is then written all the same.
    config = settings("stopped", keep_checkpoints=9)
    assert driver.run(config, tmp_path / "err", call=EVALUATE, signals=[signal.SIGTERM]) == 143
    state = config.runs / config.name / "checkpoints" / "step-4" / "state.json"
    before = state.stat().st_ino
    assert driver.run(config, tmp_path / "err", resume=True) == 0
    assert state.stat().st_ino == before


@pytest.mark.parametrize("event", [30, *slow_cases(5, 60, 90)])
def test_a_burst_of_signals_corrupts_nothing(settings, whole, driver, tmp_path, event):
    config = settings("stopped")
    burst = [signal.SIGINT, signal.SIGTERM] * 10
    code = driver.run(config, tmp_path / "err", event=event, signals=burst)
    assert code == 128 + signal.SIGINT
    assert driver.run(config, tmp_path / "err", resume=True) == 0
    assert_same(config.runs / config.name, whole.path)


def test_a_signal_during_preparation_of_the_data_leaves_a_resumable_cache(
    settings, driver, tmp_path
):
    for event in (2, 8, 14):
        config = settings(f"stopped-{event}", data={"cache": tmp_path / f"cache-{event}"})
        job = {"event": event, "signals": [signal.SIGTERM]}
        assert driver.run(config, tmp_path / "err", **job) == 143
        assert driver.run(config, tmp_path / "err", resume=True) == 0


def test_interrupted_is_a_keyboard_interrupt_with_a_code():
    error = Interrupted(signal.SIGTERM, "stopped")
    assert isinstance(error, KeyboardInterrupt)
    assert error.exit_code == 143


@pytest.mark.parametrize("nth", [2, *slow_cases(1, 3)])
def test_an_evaluation_cut_short_still_finds_the_best(settings, driver, tmp_path, nth):
    # Evaluations at 4, 8 and 12 belong to checkpoints; the one that is cut short is made up for.
    changes = {"eval_every": 4, "keep_checkpoints": 1, "weight_sparsity": {"anneal_end": 0.1}}
    straight = settings("straight", **changes)
    assert driver.run(straight, tmp_path / "err") == 0
    stopped = settings("stopped", **changes)
    during = {"call": EVALUATE, "nth": nth, "signals": [signal.SIGTERM]}
    assert driver.run(stopped, tmp_path / "err", **during) == 143
    assert driver.run(stopped, tmp_path / "err", resume=True) == 0
    kept = [checkpoint_steps(c.runs / c.name / "checkpoints") for c in (stopped, straight)]
    assert kept[0] == kept[1]
    if nth < 3:  # the last checkpoint was written before its evaluation, and is not written again
        assert_same(stopped.runs / stopped.name, straight.runs / straight.name)


def test_a_signal_while_a_finished_run_is_loaded_is_obeyed(settings, driver, tmp_path):
    config = settings()
    assert driver.run(config, tmp_path / "err") == 0
    loading = {
        "call": "wirework.training.run_folder:load",
        "signals": [signal.SIGTERM],
        "resume": True,
    }
    assert driver.run(config, tmp_path / "err", **loading) == 143
    assert "is finished already" in (tmp_path / "err").read_text()
