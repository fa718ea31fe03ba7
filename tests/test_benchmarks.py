"""`python -m benchmarks` from the root of a clone: every figure runs, and its files are checked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import figures, live_gradient

ROOT = Path(__file__).parent.parent


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*figures.NAMES, *figures.EXTRA])
def test_a_figure_runs_small(name: str, tmp_path: Path):
    result = run("--quick", "--only", name, "--json", tmp_path / "now.json")
    assert result.returncode == 0, result.stdout + result.stderr
    saved = json.loads((tmp_path / "now.json").read_text())
    assert saved["figures"]
    assert saved["machine"]["threads"] == 1
    for figure in saved["figures"]:
        assert figure["name"] in result.stdout
        if figure["median"] is None:
            assert figure["note"]
        else:
            assert 0 < figure["low"] <= figure["median"] <= figure["high"]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "before.json"
    result = run("--quick", "--only", "projection", "--json", path)
    assert result.returncode == 0, result.stderr
    return path


def changed(baseline: Path, folder: Path, factor: float, **machine: object) -> Path:
    """Return a baseline whose figures are multiplied, on a machine with other facts."""
    content = json.loads(baseline.read_text())
    for figure in content["figures"]:
        for part in ("median", "low", "high"):
            figure[part] *= factor
    content["machine"].update(machine)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


def test_the_machine_comes_first_and_a_slower_figure_is_the_exit_code(baseline, tmp_path):
    result = run("--quick", "--only", "projection", "--compare", changed(baseline, tmp_path, 1e-3))
    assert result.returncode == 1, result.stderr
    assert ", torch " in result.stdout.splitlines()[0]
    assert "\nslower  projection width 64 / reading and writing once" in result.stdout
    assert result.stdout.endswith("2 slower, 0 faster, of 2\n")


def test_on_another_machine_ratios_are_compared_alone(baseline, tmp_path):
    other = changed(baseline, tmp_path, 1e3, processor="abacus")
    result = run("--quick", "--only", "projection", "--compare", other)
    assert result.returncode == 0, result.stderr
    assert "another machine, so ratios only (processor: abacus -> " in result.stdout
    assert result.stdout.endswith("0 slower, 1 faster, of 1\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--compare", "README.md"], "README.md is not a file of figures"),
        (["--compare", "missing.json"], "cannot read missing.json: No such file"),
        (["--only", "speed"], "no figure is called speed: --list shows them all"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line(words: list[str], error: str):
    result = run("--quick", *words)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {error}")
    assert result.stderr.count("\n") == 1


def test_list_names_every_figure():
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*figures.NAMES, *figures.EXTRA]
    assert all(len(line.split()) > 4 for line in lines)


@pytest.mark.slow
def test_a_sweep_writes_its_table_and_plot(tmp_path: Path):
    result = run("sweep", "--quick", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = (tmp_path / "out" / "scaling.csv").read_text().splitlines()
    assert lines[0] == "work,width,density,nonzeros,ms,low,high"
    cells = [line.split(",") for line in lines[1:]]
    assert {cell[0] for cell in cells} >= {"output", '"step'}
    assert (tmp_path / "out" / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_live_gradients_compares_runs_of_one_seed():
    def cell(way, seed, loss, nodes):
        empty = dict.fromkeys(live_gradient.COLUMNS, "")
        values = {"val_loss": loss, "task_loss": "0.5", "train_cpu_s": "60", "nodes": nodes}
        return {**empty, "way": way, "seed": seed, **values}

    cells = [
        cell("exact", "1", "4.0", "7"),
        cell("exact", "2", "5.0", "9"),
        cell("live, every 4", "1", "4.04", "8"),
        cell("live, every 4", "2", "4.9", ""),
        cell("live, every 4", "3", "9.9", "1"),  # no exact run to compare with
    ]
    *_, exact, live = live_gradient.table(cells).splitlines()
    assert exact == "| exact | 2 | 4.500 |  | 0.500 |  | 7, 9 | none, none | 60 |"
    assert live.startswith("| live, every 4 | 2 | 4.470 | -0.50 (-2.00 to +1.00) | 0.500 |")
    assert "| 8, none |" in live
