"""The demo on a tiny recipe: its runs, its refusal of too weak a model, and its end by a kill.

What it is for, a circuit that reaches its target, takes minutes of training: `make demo`.
"""

import json.decoder
import json.encoder
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from wirework import demo, files
from wirework.demo_plan import Plan
from wirework.errors import InputError
from wirework.training.run_folder import finished_run

WIREWORK = Path(sys.executable).with_name("wirework")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe of three steps on a few modules of the standard library."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for module in (json.decoder, json.encoder, re, shutil, subprocess, textwrap):
        shutil.copy(str(module.__file__), corpus)
    return write_recipe(tmp_path / "tiny.yaml", corpus, steps=3)


def write_recipe(path: Path, corpus: Path, steps: int) -> Path:
    settings = {
        "name": "tiny",
        "steps": steps,
        "batch_size": 4,
        "model": {"vocab_size": 600, "d_model": 16, "n_layer": 2, "n_ctx": 32},
        "data": {"corpus": str(corpus), "vocab_size": 600, "val_fraction": 0.3},
        "weight_sparsity": {"l0_fraction": 0.5, "floor": 1},
        "eval_batches": 2,
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def start(recipe: Path, out: Path) -> "subprocess.Popen[str]":
    command = [str(WIREWORK), "demo", "--recipe", str(recipe), "--out", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_trains_both_models_and_says_that_this_one_is_too_weak(recipe: Path, tmp_path: Path):
    process = start(recipe, tmp_path / "out")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert output == ""
    assert "the model's own task loss" in errors.splitlines()[-1]
    sparse = finished_run(tmp_path / "out" / "tiny")
    assert sparse is not None
    assert sparse.metrics["nonzero_fraction"] < 0.6
    assert is_free(tmp_path / "out" / "tiny-dense")  # the twin, which may not be through, has ended


@pytest.mark.slow
def test_the_circuit_is_looked_for_while_the_twin_still_trains(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def look(_model):
        wait_until(lambda: (tmp_path / "tiny-dense" / "metrics.jsonl").is_file())
        raise InputError("seen")

    monkeypatch.setattr(demo, "_circuit_of", look)
    monkeypatch.setattr(
        demo,
        "_dense_twin",
        lambda config, *_: config.model_copy(update={"name": "tiny-dense", "steps": 10**6}),
    )
    with pytest.raises(InputError, match="seen"):
        demo.demo(tmp_path, recipe)
    assert is_free(tmp_path / "tiny-dense")
    assert list((tmp_path / "tiny-dense" / "checkpoints").glob("step-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("twin_steps", "threads"), [(10**6, 1), (3, 2)])
def test_pruning_leaves_the_twin_its_cores_and_takes_all_without_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin_steps: int, threads: int
):
    def look(_model):
        raise InputError(f"pruned with {torch.get_num_threads()} threads")

    class Twin(subprocess.Popen):
        def poll(self):
            short = twin_steps == 3 and "train_while_watched" in str(self.args)
            return self.wait() if short else super().poll()

    monkeypatch.setattr(demo, "_circuit_of", look)
    monkeypatch.setattr(subprocess, "Popen", Twin)
    monkeypatch.setattr(
        demo,
        "_dense_twin",
        lambda config, *_: config.model_copy(update={"name": "tiny-dense", "steps": twin_steps}),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(InputError, match=f"pruned with {threads} threads"):
            demo.demo(tmp_path, recipe)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_model_of_few_steps_that_is_too_weak_names_the_way_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = Plan(steps=2, steps_of_recipe=3, minutes=10.0, tokens_per_s=900.0)
    monkeypatch.setattr(demo, "make_plan", lambda *_: plan)
    with pytest.raises(InputError, match=r"2 of the recipe's 3 steps .*try --minutes 20 with"):
        demo.demo(tmp_path, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_second_training_ends_with_the_first(recipe: Path, tmp_path: Path, number: int):
    corpus = recipe.with_name("corpus")
    recipe = write_recipe(recipe, corpus, steps=1_000_000)
    plan = Plan(steps=10**6, steps_of_recipe=10**6, minutes=10.0, tokens_per_s=1.0)
    files.write_record(tmp_path / "out" / "demo.json", asdict(plan))
    twin = tmp_path / "out" / "tiny-dense"
    process = start(recipe, tmp_path / "out")
    wait_until(lambda: (twin / "metrics.jsonl").is_file())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert said.splitlines()[-1] == (
            f"wirework: stopped; the same command goes on from what was saved in {tmp_path / 'out'}"
        )
    wait_until(lambda: is_free(twin))
    assert list((twin / "checkpoints").glob("step-*"))


def is_free(run: Path) -> bool:
    try:
        with files.locked(run / "lock", str(run)):
            return True
    except InputError:
        return False


def wait_until(condition, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
