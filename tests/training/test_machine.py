"""A run keeps to the libraries that it began with, whatever was measured or forgotten since."""

import json
import os
import signal

import pytest

from wirework import fastest
from wirework.nn.kernels import products
from wirework.training import Interrupted, loop, train
from wirework.training.optimizer import scale_gradients_


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function that makes this a new process with an empty cache, where one is fastest."""
    monkeypatch.delenv("WIREWORK_PRODUCTS", raising=False)
    monkeypatch.setattr(products, "_MIN_CHOSEN", 1)
    if "numpy" not in products.available():
        pytest.skip("numpy without OpenBLAS")

    def anew(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        monkeypatch.setattr(fastest, "_chosen", {})
        monkeypatch.setattr(
            fastest, "milliseconds", lambda ways, _: {way: 1.0 + (way != name) for way in ways}
        )

    return anew


def stopped(config, monkeypatch, step):
    """Train until the signal that comes after `step`."""
    count = iter(range(1000))

    def then_stop(*args):
        if next(count) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return scale_gradients_(*args)

    monkeypatch.setattr(loop, "scale_gradients_", then_stop)
    with pytest.raises(Interrupted):
        train(config, progress=False)
    monkeypatch.setattr(loop, "scale_gradients_", scale_gradients_)


def test_a_resume_without_the_cache_keeps_to_the_run_s_choices(
    settings, machine, monkeypatch, capsys
):
    machine("numpy")
    whole = train(settings("whole"), progress=False)
    config = settings("stopped")
    stopped(config, monkeypatch, step=5)
    machine("torch")
    resumed = train(config, resume=True, progress=False)
    first, second = (run.path / "model" / "model.safetensors" for run in (resumed, whole))
    assert first.read_bytes() == second.read_bytes()
    assert "last bits" not in capsys.readouterr().err


def test_a_resume_on_another_machine_is_warned_of(settings, machine, monkeypatch, capsys):
    machine("numpy")
    config = settings("stopped")
    stopped(config, monkeypatch, step=5)
    monkeypatch.setattr(fastest, "machine", lambda threads: f"elsewhere, {threads} threads")
    machine("torch")
    assert train(config, resume=True, progress=False).metrics["step"] == config.steps
    lines = [line for line in capsys.readouterr().err.splitlines() if "last bits" in line]
    assert len(lines) == 1
    assert "elsewhere" in lines[0]


def test_a_checkpoint_names_its_machine_and_what_was_chosen(settings, machine):
    machine("numpy")
    run = train(settings(), progress=False)
    state = json.loads((run.path / "checkpoints" / "step-12" / "state.json").read_text())
    assert state["machine"] == fastest.machine(1)
    ways: dict[str, set[str]] = {"product": set(), "sparse product": set()}
    for question, way in state["choices"].items():
        ways["sparse product" if question.startswith("sparse product") else "product"].add(way)
    # The fixture makes neither way of a sparse product the fastest: the default is kept.
    assert ways == {"product": {"numpy"}, "sparse product": {"dense"}}
