"""What an earlier version wrote still opens, and today's code finds the numbers that it found.

`golden/` holds a folder of each kind, the settings and command lines that made it, and what they
printed (`golden/make.py`). Commands run here again, in a copy, by the names of that time. A name
that has changed since is told to the tests in `RENAMED` only.

Counts, names and edges are compared exactly. Floats may differ by 1e-5: other processors and
libraries sum in another order, which changes the last bits, and 100 steps of training add that up.
A choice of the k largest is no sum: a near tie that falls the other way changes a number by
percents. So circuits are looked for in a hand-wired model, with wide gaps between what a circuit
needs and what it does not, and the training of 100 steps has a seed without near ties and gates
whose soft masks are steep (temperature 0.001): at 0.1 their gradient is the inverse of a small gap
between scores, and processors part within ten steps. To check on one machine that all this holds on
others, set `ATEN_CPU_CAPABILITY=default`, `MKL_CBWR=COMPATIBLE` and `ONEDNN_MAX_CPU_ISA=SSE41`.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import wirework as ww
from wirework import config as settings
from wirework.circuits.adversarial import attacks, reading
from wirework.cli import main
from wirework.fastest import machine
from wirework.tasks import BUILT_IN_TASKS, earlier_tasks, load
from wirework.tasks.earlier_tasks import EARLIER_TASKS
from wirework.view import write_curves, write_measures_figure, write_neuron_page, write_page

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = yaml.safe_load((GOLDEN / "commands.yaml").read_text())
INPUTS = ("model", "text.jsonl", "quotes.jsonl", "settings")
CIRCUITS = ("circuit", "all/single_double_quote", "finders/circuits/learned/0.15/quotes", "paths")
SETTINGS: dict[str, type[settings.Config]] = {
    "train": settings.TrainConfig,
    "training": settings.TrainConfig,
    "prune": settings.PruneConfig,
    "prune_all": settings.PruneConfig,
    "acdc": settings.AcdcConfig,
    "explain": settings.ExplainConfig,
    "measure": settings.MeasureConfig,
    "self_ablation": settings.SelfAblationConfig,
}
RENAMED = {
    "also": "extra_rankings",
    "anyway": "allow_unreached",
    "both": "symmetric",
    "draws": "n_resamples",
    "which": "instruments",
}
"""Names in files and settings of that time that have another name now, with that."""
OTHER_MEANING = {"n_edges": "n_kept_edges", "edges": "kept_edges", "share": "kept_share"}
"""Names of that time that now mean another number, with the name that the number has now."""
REWORDED = {
    "chosen on 8 pairs that the circuit's search never saw, measured on 8 others (held out)": (
        "chosen on 8 held-out pairs, measured on 8 others"
    ),
}
"""Parts of sentences of that time that are worded otherwise now, with today's words."""
OF_THE_CALL = {
    "timing", "seconds", "sum", "checksum", "sha256", "machine", "wirework", "reason", "reasons",
}  # fmt: skip
"""What is not compared: times, checksums, versions, sentences with rounded numbers or pairs."""

Command = Callable[..., Any]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),
    pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated"),
]


@pytest.fixture(autouse=True)
def _as_then(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """One thread, one library for products; tasks, neutral lines and places of that time."""
    monkeypatch.setenv("WIREWORK_PRODUCTS", "torch")
    monkeypatch.setattr(load, "BUILT_IN_TASKS", {**BUILT_IN_TASKS, **EARLIER_TASKS})
    monkeypatch.setattr(attacks, "lines_before", earlier_tasks.lines_before)
    monkeypatch.setattr(reading, "PLACES", ("comment",))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of all that was written, which is the working directory."""
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the inputs only, which is the working directory."""
    for name in INPUTS:
        path, place = GOLDEN / name, tmp_path / name
        shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return `command(name)`, which runs a line of `commands.yaml` and returns its JSON, if any."""

    def run(name: str, *more: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["wirework", *COMMANDS[name].split(), *more])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return json.loads(out.splitlines()[-1]) if "--json" in sys.argv else None

    return run


def stored(name: str) -> Any:
    """Return a JSON file of the golden folder."""
    return json.loads((GOLDEN / name).read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def alike(now: Any, then: Any, rel: float = 1e-5, where: str = "") -> None:
    """Make sure that all that was there then is there now: floats nearly, all else exactly."""
    if isinstance(then, dict):
        for name, value in then.items():
            if name not in OF_THE_CALL:
                today = name if name in now else RENAMED.get(name, name)
                today = OTHER_MEANING[name] if OTHER_MEANING.get(name) in now else today
                assert today in now, f"{where}.{name} is gone"
                alike(now[today], value, rel, f"{where}.{name}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for i, (one, other) in enumerate(zip(now, then, strict=True)):
            alike(one, other, rel, f"{where}[{i}]")
    elif isinstance(then, float):
        assert now == pytest.approx(then, rel=rel, abs=rel / 10, nan_ok=True), where
    elif isinstance(then, str):
        for words, today in REWORDED.items():
            then = then.replace(words, today)
        assert now == then, where
    else:
        assert now == then, where


def stamps(folder: Path) -> dict[str, int]:
    """Return when each JSON and tensor file below a folder was last written."""
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_circuit_opens_and_is_saved_as_it_was(name: str, copy: Path, tmp_path: Path) -> None:
    circuit, then = ww.Circuit.load(copy / name), stored(f"{name}/circuit.json")
    counts = {"n_nodes": "n_nodes", "n_kept_edges": "n_edges", "n_io_edges": "n_io_edges"}
    counts = {"n_path_edges": "n_path_edges"} if name == "paths" else counts
    assert {count: getattr(circuit, count) for count in counts} == {
        count: then[name_then] for count, name_then in counts.items()
    }
    assert circuit.task_loss == then["losses"]["circuit"]
    assert circuit.reached == then["reached"]
    assert type(circuit) is (ww.PathCircuit if name == "paths" else ww.NodeCircuit)
    path_edges = circuit.path_edges if isinstance(circuit, ww.PathCircuit) else ()
    edges = [(edge.source, edge.target, edge.effect) for edge in path_edges]
    assert edges == [
        (edge["source"], edge["target"], edge["effect"]) for edge in then.get("path_edges", ())
    ]
    circuit.check_model("model")
    circuit.save(tmp_path / "again")
    alike(json.loads((tmp_path / "again" / "circuit.json").read_text()), then, rel=0)
    write_page(copy / name, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_run_opens_and_its_model_gives_the_loss_of_then(copy: Path) -> None:
    model, config = ww.load("runs/run"), ww.TrainConfig.load("runs/run/config.yaml")
    assert model.config == config.model
    final = stored_metrics("run")[-1]
    assert model.fingerprint == ww.load(GOLDEN / "runs" / "run").fingerprint
    run = ww.train(ww.TrainConfig.load("settings/train.yaml"), resume=True, progress=False)
    alike(run.metrics, {key: value for key, value in final.items() if key != "kind"}, rel=0)
    alike(run.history(), stored_metrics("run"), rel=0)


def test_a_run_without_its_model_is_ended_from_its_checkpoint(copy: Path, command: Command) -> None:
    before = ww.load("runs/run").fingerprint
    shutil.rmtree("runs/run/model")
    command("run", "--resume")
    assert ww.load("runs/run").fingerprint == before


def stored_metrics(run: str) -> list[dict[str, Any]]:
    return lines(GOLDEN / "runs" / run / "metrics.jsonl")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_then_load(name: str) -> None:
    path = GOLDEN / "settings" / f"{name}.yaml"
    config = SETTINGS[name].load(path)
    alike(config.model_dump(mode="json"), yaml.safe_load(path.read_text()), rel=0)


def test_tables_and_pages_are_drawn_from_what_was_written(copy: Path, tmp_path: Path) -> None:
    write_measures_figure(copy / "measures")
    write_neuron_page(copy / "explained", tmp_path / "neurons.html")
    write_curves(stored("attack/attack.json"), tmp_path / "attack.png")
    for path in (
        copy / "measures/measures.png",
        tmp_path / "neurons.html",
        tmp_path / "attack.png",
    ):
        assert path.stat().st_size > 5000, path.name


@pytest.mark.parametrize("name", ["finders", "self_ablation", "explained"])
def test_what_was_finished_is_only_read_again(name: str, copy: Path, command: Command) -> None:
    kept = {"finders": "circuits", "self_ablation": "cells", "explained": "neurons"}[name]
    before = stamps(copy / name / kept)
    alike(command(name), stored(f"printed/{name}.json"), rel=1e-9)
    assert stamps(copy / name / kept) == before


@pytest.mark.slow
def test_a_search_is_gone_on_with(copy: Path, command: Command) -> None:
    shutil.rmtree("circuit")
    (search,) = (copy / "circuit.search").iterdir()
    masks, n_trials = (search / "best.safetensors").read_bytes(), count_trials(search)
    alike(command("circuit"), stored("printed/circuit.json"))
    assert list((copy / "circuit.search").iterdir()) == [search]
    assert (search / "best.safetensors").read_bytes() == masks
    assert count_trials(search) == n_trials == 2


def count_trials(search: Path) -> int:
    """Return how many trials the journal of a search began: optuna's operation 4."""
    return sum(line["op_code"] == 4 for line in lines(search / "study.log"))


@pytest.mark.slow
def test_circuits_of_many_tasks_are_gone_on_with(copy: Path, command: Command) -> None:
    before = stamps(copy / "all")
    command("all")
    after = stamps(copy / "all")
    # Reasons in the table quote pairs, and most tasks have other pairs now: it is written again.
    assert before.pop("results.json") < after.pop("results.json")
    assert after == before
    alike(json.loads((copy / "all" / "results.json").read_text()), stored("all/results.json"), 0)
    after = stamps(copy / "all")
    command("all")
    assert stamps(copy / "all") == after


def test_losses_of_100_steps_are_those_of_then(anew: Path, command: Command) -> None:
    command("training")
    alike(lines(anew / "runs" / "training" / "metrics.jsonl"), stored_metrics("training"))


def test_the_first_step_with_soft_masks_is_that_of_then(anew: Path, command: Command) -> None:
    """A soft mask's gradient is the inverse of a small gap: on other processors steps part soon."""
    command("run")
    now, then = lines(anew / "runs" / "run" / "metrics.jsonl"), stored_metrics("run")
    same_machine = machine(torch.get_num_threads()) == stored("versions.json")["machine"]
    if same_machine:
        alike(now, then)
    else:
        alike(now[0], {name: value for name, value in then[0].items() if name != "grad_rms"})
        final, end = now[-1], then[-1]
        assert final["val_loss"] == pytest.approx(end["val_loss"], rel=0.02)


def test_a_search_made_anew_finds_the_circuit_of_then(anew: Path, command: Command) -> None:
    alike(command("circuit"), stored("printed/circuit.json"))
    now, then = (json.loads((at / "circuit/circuit.json").read_text()) for at in (anew, GOLDEN))
    alike(now, then, rel=1e-4)


def test_path_edges_are_those_of_then(anew: Path, command: Command) -> None:
    alike(command("paths"), stored("printed/paths.json"))
    now, then = (json.loads((at / "paths/circuit.json").read_text()) for at in (anew, GOLDEN))
    alike(now, then, rel=1e-4)


@pytest.mark.parametrize("name", ["validation", "measures"])
def test_reports_on_what_was_written_say_the_same(name: str, copy: Path, command: Command) -> None:
    alike(command(name), stored(f"printed/{name}.json"))


@pytest.mark.slow
def test_attacks_are_those_of_then(copy: Path, command: Command) -> None:
    alike(command("attack"), stored("printed/attack.json"))


@pytest.mark.slow
def test_the_table_of_a_study_is_that_of_then(anew: Path, command: Command) -> None:
    alike(command("finders_table")["rows"], stored("printed/finders_table.json")["rows"])
