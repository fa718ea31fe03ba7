import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from wirework.errors import InputError
from wirework.training import train
from wirework.training.track import check_trackers, open_trackers


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_tracker_names_the_extra_before_any_work(settings):
    config = settings(track=("wandb",))
    with pytest.raises(InputError, match=r"wandb is not installed: pip install '\.\[track\]'"):
        train(config, progress=False)
    assert not config.runs.exists()


def test_no_tracker_needs_nothing():
    check_trackers(())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_numbers(settings):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(settings(steps=2, track=("tensorboard",)), progress=False)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    losses = [line["loss"] for line in run.history() if line["kind"] == "train"]
    assert [point.value for point in events.Scalars("train/loss")] == pytest.approx(losses)
    assert [point.step for point in events.Scalars("eval/val_loss")] == [2]


# Weights & Biases: the package itself, offline.


@pytest.fixture
def wandb_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what each `wandb.init` of the test returned."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    made: list[Any] = []
    real = wandb.init

    def init(**settings: Any) -> Any:
        made.append(real(**settings))
        return made[-1]

    monkeypatch.setattr(wandb, "init", init)
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its own
def test_wandb_gets_all_settings_and_goes_on_with_the_same_curve(settings, wandb_runs):
    run = train(settings(steps=2, track=("wandb",)), progress=False)
    (first,) = wandb_runs
    assert dict(first.config) == yaml.safe_load((run.path / "config.yaml").read_text())
    assert (first.project, first.name) == ("wirework", "tiny")
    (tracker,) = open_trackers(settings(track=("wandb",)), run.path, 1)
    tracker.close()
    assert wandb_runs[1].id == first.id
    other = train(settings("other", steps=1, track=("wandb",)), progress=False)
    assert other.path != run.path
    assert wandb_runs[2].id != first.id


@pytest.mark.filterwarnings("ignore")
def test_a_wandb_id_that_cannot_be_read_is_one_line(settings, wandb_runs, tmp_path):
    (tmp_path / "wandb_id").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*wandb_id: Is a directory"):
        open_trackers(settings(track=("wandb",)), tmp_path, 1)


@pytest.mark.filterwarnings("ignore")
def test_wandb_takes_project_and_entity_from_its_variables(settings, wandb_runs, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "us")
    train(settings(steps=1, track=("wandb",)), progress=False)
    assert (wandb_runs[0].project, wandb_runs[0].entity) == ("mine", "us")


# Its failures: a module in its place.


class Unreachable:
    """A W&B that fails from its second number on."""

    def __init__(self) -> None:
        self.logged: list[int] = []

    def init(self, **settings: Any) -> "Unreachable":
        assert settings["resume"] == "allow"
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append(step)
        if len(self.logged) > 1:
            raise RuntimeError("Cannot send a request,\nas the client has been closed.")

    def finish(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def put_in_its_place(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    vars(module)["init"] = init
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_a_failing_tracker_ends_the_tracking_and_not_the_training(settings, monkeypatch, capsys):
    fake = Unreachable()
    put_in_its_place(monkeypatch, fake.init)
    run = train(settings(steps=4, track=("wandb",)), progress=False)
    assert run.metrics["step"] == 4
    assert len(fake.logged) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert lines == [
        "warning: track: wandb failed: Cannot send a request, as the client has been closed.; "
        "it gets no more numbers, all are in metrics.jsonl"
    ]


@pytest.mark.parametrize(
    "error", [RuntimeError("api_key not configured (no-tty)"), KeyError("entity"), OSError(5, "x")]
)
def test_a_tracker_that_cannot_start_is_one_line(settings, monkeypatch, error):
    def init(**_: Any) -> None:
        assert not sys.stdin.isatty()  # nobody is asked
        raise error

    put_in_its_place(monkeypatch, init)
    with pytest.raises(InputError, match=r"track: wandb cannot be started: .") as caught:
        train(settings(track=("wandb",)), progress=False)
    assert caught.value.__cause__ is error
