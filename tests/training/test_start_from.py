"""A run that starts from the weights of another one."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wirework.config import TrainConfig
from wirework.errors import InputError
from wirework.model import load
from wirework.training import Interrupted, Prior, Run, train
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


@pytest.mark.parametrize("of_tasks", [True, False, None])
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
