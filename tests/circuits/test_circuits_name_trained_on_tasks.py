"""A circuit says whether its model was trained on text drawn from the tasks."""

import json
from pathlib import Path

import pytest

import wirework as ww

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("trained_on_tasks", [True, False, None])
def test_circuit_json_has_what_the_model_says(trained_on_tasks: bool | None, tmp_path: Path):
    model = ww.load(GOLDEN / "model")
    model.trained_on_tasks = trained_on_tasks
    circuit = ww.acdc(model, GOLDEN / "quotes.jsonl", pairs=2, progress=False)
    folder = circuit.save(tmp_path / "circuit")
    values = json.loads((folder / "circuit.json").read_text())
    assert values["model"].get("trained_on_tasks") is trained_on_tasks
    assert ww.Circuit.load(folder).document.model.trained_on_tasks is trained_on_tasks
    assert ("trained_on_tasks" in circuit.summary()) == (trained_on_tasks is True)


@pytest.mark.parametrize("name", ["circuit", "paths"])
def test_a_circuit_of_an_earlier_version_does_not_say(name: str):
    assert ww.Circuit.load(GOLDEN / name).document.model.trained_on_tasks is None
