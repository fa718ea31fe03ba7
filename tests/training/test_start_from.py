"""A run that starts from the weights of another one."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wirework.config import GatingConfig, TrainConfig
from wirework.errors import InputError
from wirework.model import load
from wirework.nn.gates import Gates
from wirework.training import Interrupted, Prior, Run, train
from wirework.training.dense_model import folders_with_text
from wirework.training.job import any_on_tasks
from wirework.training.metrics import read_metrics

Settings = Callable[..., TrainConfig]
AT_ONCE = {"start_fraction": 0.15, "anneal_start": 0.0, "anneal_end": 0.01}
"""The nonzero fraction of `settings` before the first step."""


class StopAfter(Prior):
    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, step: int) -> dict[str, float]:
        if step == self.step:
            raise Interrupted(15, "stopped")
        return {}


def test_the_first_step_has_the_loss_of_the_weights_it_starts_from(settings: Settings, whole: Run):
    config = settings(
        "more", start_from=whole.path, steps=1, seed=5, eval_every=1,
        weight_sparsity=AT_ONCE, optimizer={"lr": 1e-12},
    )  # fmt: skip
    run = train(config, progress=False)
    assert run.metrics["val_loss"] == pytest.approx(whole.metrics["val_loss"], abs=1e-5)
    for name, tensor in whole.model.transformer.state_dict().items():
        assert torch.allclose(run.model.transformer.state_dict()[name], tensor, atol=1e-6), name


def test_it_takes_the_text_and_tokeniser_of_that_run(settings: Settings, whole: Run):
    run = train(settings("more", start_from=whole.path, steps=2), progress=False)
    assert load(run.path).tokenizer.fingerprint == load(whole.path).tokenizer.fingerprint  # type: ignore[union-attr]


@pytest.mark.parametrize("of", ["run", "model"])
def test_the_text_is_looked_for_in_the_run_of_a_model_folder(settings: Settings, of: str):
    path = Path("runs/wide") if of == "run" else Path("runs/wide/model")
    expected = {Path("runs/wide")} if of == "run" else {path, Path("runs/wide")}
    assert set(folders_with_text(settings(start_from=path))) == expected
    assert set(folders_with_text(settings(bridges={"dense": path}))) == expected


def test_a_model_folder_has_the_text_of_its_run(settings: Settings, whole: Run, tmp_path: Path):
    changes = {"start_from": whole.path / "model", "steps": 1}
    run = train(settings("more", data={"cache": tmp_path / "cache"}, **changes), progress=False)
    assert load(run.path).tokenizer.fingerprint == load(whole.path).tokenizer.fingerprint  # type: ignore[union-attr]
    assert not (tmp_path / "cache").exists()


def test_a_resumed_run_does_not_need_the_first_model_again(
    settings: Settings, whole: Run, tmp_path: Path
):
    source = tmp_path / "source"
    shutil.copytree(whole.path, source)
    undisturbed = train(settings("undisturbed", start_from=source), progress=False)
    config = settings("stopped", start_from=source)
    with pytest.raises(Interrupted):
        train(config, progress=False, priors=[StopAfter(6)])
    shutil.rmtree(source / "model")
    resumed = train(config, resume=True, progress=False)
    assert resumed.model.fingerprint == undisturbed.model.fingerprint
    assert len(read_metrics(resumed.path / "metrics.jsonl")) == len(
        read_metrics(undisturbed.path / "metrics.jsonl")
    )


def test_a_source_may_move_before_the_first_checkpoint(
    settings: Settings, whole: Run, tmp_path: Path
):
    source, moved = tmp_path / "source", tmp_path / "moved"
    shutil.copytree(whole.path, source)
    with pytest.raises(Interrupted):
        train(settings("cut", start_from=source), progress=False, priors=[StopAfter(1)])
    shutil.move(source, moved)
    resumed = train(settings("cut", start_from=moved), resume=True, progress=False)
    undisturbed = train(settings("undisturbed", start_from=moved), progress=False)
    assert resumed.model.fingerprint == undisturbed.model.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"n_layer": 2}}, "model.n_layer: 1 -> 2"),
        ({"model": {"activation": "relu"}}, "model.activation: gelu -> relu"),
        ({"data": {"vocab_size": 350}, "model": {"vocab_size": 350}}, "vocab_size: 400 -> 350"),
        ({"start_from": "nowhere"}, "no model at nowhere"),
    ],
)
def test_another_model_is_refused_before_anything_is_written(
    settings: Settings, whole: Run, changes: dict[str, Any], message: str
):
    config = settings("other", **{"start_from": whole.path, **changes})
    with pytest.raises(InputError, match=re.escape(message)):
        train(config, progress=False)
    assert not (config.runs / "other" / "config.yaml").exists()


def test_another_tokeniser_of_the_same_size_is_refused(settings: Settings, whole: Run):
    config = settings("other", start_from=whole.path, data={"val_fraction": 0.5})
    with pytest.raises(InputError, match=r"another tokeniser than the text: give data\.tokenizer"):
        train(config, progress=False)


def test_a_self_ablating_model_is_refused(settings: Settings, whole: Run, tmp_path: Path):
    source = load(whole.path)
    source.gates = Gates(source.config, GatingConfig(k_attention=4, k_neurons=4))
    source.save(tmp_path / "source")
    config = settings("more", start_from=tmp_path / "source", data={"tokenizer": whole.path})
    with pytest.raises(InputError, match="source is a self-ablating model: its gates would be"):
        train(config, progress=False)
    assert not (config.runs / "more" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], False),
        ([False], False),
        ([False, False], False),
        ([None], None),
        ([False, None], None),
        ([None, False], None),
        ([True], True),
        ([False, True], True),
        ([None, True], True),
        ([True, None, False], True),
    ],
)
def test_one_model_of_tasks_is_enough_and_one_unknown_leaves_it_open(
    models: list[bool | None], expected: bool | None
):
    assert any_on_tasks(models) is expected


@pytest.mark.parametrize("of_tasks", [True, None])
def test_the_model_says_that_its_first_weights_saw_text_of_tasks(
    settings: Settings, whole: Run, tmp_path: Path, of_tasks: bool | None
):
    source = load(whole.path)
    source.trained_on_tasks = of_tasks
    source.save(tmp_path / "source")
    config = settings(
        "more", start_from=tmp_path / "source", steps=1, data={"tokenizer": whole.path}
    )
    expected = True if of_tasks else None  # the text of `settings` is of unknown origin
    assert load(train(config, progress=False).path).trained_on_tasks is expected
