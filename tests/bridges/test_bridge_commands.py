"""`steer` and `measure` on a bridged run whose exact bridges are known, from the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import run_here
from hand_wired import quote_closer
from hand_wired.circuits import circuit_of
from hand_wired.rotated import exact_pair

from wirework.model import load
from wirework.training.bridge_files import save_bridges

QUOTE = "0.attn.act_in.0"


class Saved(NamedTuple):
    """A bridged run on disk, a circuit of its sparse model, its task and some text."""

    run: Path
    circuit: Path
    task: Path
    text: Path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("saved")
    planted = quote_closer.plant()
    pair = exact_pair(planted.model)
    pair.dense.save(folder / "dense")
    pair.sparse.save(folder / "run" / "model")
    dense, sparse = load(folder / "dense"), load(folder / "run")
    save_bridges(folder / "run" / "bridges", pair.bridges, dense, sparse)
    circuit = circuit_of(replace(planted, model=sparse)).save(folder / "circuit")
    task = folder / "task.jsonl"
    lines = [{"prompts": pair.prompts, "answers": pair.answers} for pair in planted.task.pairs]
    task.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    text = folder / "text.txt"
    text.write_text("\n".join(prompt for pair in planted.task.pairs for prompt in pair.prompts))
    return Saved(folder / "run", circuit, task, text)


def test_steer_prints_the_result_and_writes_the_folder(saved: Saved, tmp_path: Path):
    out = tmp_path / "steering"
    result = run_here(
        "steer", saved.run, saved.circuit, "--out", out, "--corpus", saved.text, "--draws", "2",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f"steering the dense model by {QUOTE} takes the probability" in result.stdout
    assert {path.name for path in out.iterdir()} >= {
        "steering.json", "steering.safetensors", "steering.png",
    }  # fmt: skip
    about = json.loads((out / "steering.json").read_text())
    assert (about["nodes"], about["target"]) == ([QUOTE], "dense")
    (at_one,) = [point for point in about["curve"] if point["strength"] == 1]
    assert at_one["other_of_two"] > 0.9


def test_steer_as_json(saved: Saved, tmp_path: Path):
    result = run_here(
        "steer", saved.run, saved.circuit, "--out", tmp_path / "s", "--corpus", saved.text,
        "--draws", "2", "--strength", "0.5", "--target", "sparse", "--node", QUOTE, "--json",
        cwd=tmp_path,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert [point["strength"] for point in report["curve"]] == [0, 0.5, 1]
    assert (report["target"], report["chosen"]) == ("sparse", False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--node", "0.attn.v.1"), "no node that reads the residual stream"),
        (("--node", "0.mlp.act_in.0"), "the circuit does not hold 0.mlp.act_in.0"),
        (("--strength", "nan"), "a strength must be a finite number"),
        (("--strength", "much"), "much"),
        (("--pairs", "0"), "pairs must be at least 1"),
        (("--dense", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_of_steer_is_one_line(
    saved: Saved, tmp_path: Path, flags: tuple[str, ...], message: str
):
    out = tmp_path / "steering"
    result = run_here(
        "steer",
        saved.run,
        saved.circuit,
        "--out",
        out,
        "--corpus",
        saved.text,
        *flags,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_a_folder_with_other_files_is_refused_before_the_work(saved: Saved, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    result = run_here("steer", saved.run, saved.circuit, "--out", out, cwd=tmp_path)
    assert result.returncode == 2
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_run_without_bridges_is_refused(saved: Saved, tmp_path: Path):
    model = saved.run.parent / "dense"
    result = run_here("steer", model, saved.circuit, "--out", tmp_path / "s", cwd=tmp_path)
    assert result.returncode == 2
    assert "is not a bridged run" in result.stderr


def test_measure_shows_the_bridges(saved: Saved, tmp_path: Path):
    out = tmp_path / "measures"
    for _ in range(2):  # its own files are replaced
        result = run_here(
            "measure", saved.run, "--corpus", saved.text, "--instruments", "sparsity", "--out", out,
            cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert "bridges of" in result.stdout
    quality = json.loads((out / "run-bridges.json").read_text())
    trained = quality["maps"][0]
    assert [one["location"] for one in trained["locations"]][-1] == "unembed"
    assert all(one["encoder_nmse"] < 1e-3 for one in trained["locations"])
    assert (out / "run-bridges.png").read_bytes().startswith(b"\x89PNG")


def test_measure_without_the_dense_model_keeps_its_other_numbers(saved: Saved, tmp_path: Path):
    dense = saved.run.parent / "dense"
    dense.rename(dense.with_name("moved"))
    try:
        result = run_here(
            "measure", saved.run, "--corpus", saved.text, "--instruments", "sparsity", cwd=tmp_path
        )
    finally:
        dense.with_name("moved").rename(dense)
    assert result.returncode == 0, result.stderr
    assert "bridges: the dense model of" in result.stderr
    assert "log kurtosis" in result.stdout
