"""A function that a file names is never run; one that the user names is."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from wirework.cli import main
from wirework.config import TrainConfig
from wirework.errors import InputError
from wirework.menu import app
from wirework.training import train
from wirework.user_code import OURS, load_function, refuse_saved_function

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),
    pytest.mark.usefixtures("few_random_circuits"),
]

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()

def texts():
    for i in range(200):
        yield f"name_{i} = ('{i}', {i})\\n" * 20
"""

QUICK = [
    "--target-loss",
    "9",
    "--trials",
    "1",
    "--steps",
    "1",
    "--eval-pairs",
    "8",
    "--allow-unreached",
]
PRUNE = ["single_double_quote", "--out", "out", *QUICK]
VERBS: dict[str, tuple[list[str], list[str]]] = {
    "prune": (["prune"], PRUNE),
    "prune all": (["prune"], ["--all", "--out", "out", *QUICK]),
    "explain": (["explain"], ["--out", "out", "--neurons", "2"]),
    "estimate": (
        ["explain"],
        ["--estimate-only", "--explainer", "language_model", "--server.model", "m"],
    ),
    "sae": (["sae"], ["--out", "out", "--site", "0.mlp.resid_delta"]),
    "measure": (["measure"], ["--instruments", "language"]),
    "study finders": (["study", "finders"], ["--task", "for_while", "--out", "out"]),
}


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["wirework", *map(str, words)])
    monkeypatch.setattr(app, "config", app.config)  # put back what --config leaves there
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on ordinary text."""
    home = tmp_path_factory.mktemp("plain")
    text = home / "text.txt"
    text.write_text("".join(f"name_{i} = ('{i}', {i})\n" for i in range(4000)))
    return train(settings(home, str(text)), progress=False).path


def settings(home: Path, corpus: str) -> TrainConfig:
    values: dict[str, Any] = {
        "name": "run", "runs": home, "steps": 1, "batch_size": 2, "eval_batches": 1,
        "model": {"vocab_size": 400, "n_ctx": 32, "n_layer": 1, "d_model": 16, "d_head": 8},
        "data": {
            "corpus": corpus, "cache": home / "cache", "vocab_size": 400, "val_fraction": 0.3,
            "workers": 1, "answers": "python",
        },
        "precision": "float32", "device": "cpu",
    }  # fmt: skip
    return TrainConfig.of(values)


@pytest.fixture
def strange(plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stranger's run, whose settings name the function beside it."""
    shutil.copytree(plain_run, tmp_path / "run")
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rename_corpus(run: Path, **changes: Any) -> None:
    """Name another text in a run of a version that kept no record of its tokens."""
    (run / "data.json").unlink()
    (run / "checksums.json").unlink()
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["data"] |= changes
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    for path in run.glob("checkpoints/*/state.json"):
        state = json.loads(path.read_text())
        state["settings"]["data"] |= {key: str(value) for key, value in changes.items()}
        path.write_text(json.dumps(state))


@pytest.mark.parametrize("named", ["evil.py:texts", "evil:texts"])
@pytest.mark.parametrize("setting", ["corpus", "mix"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_runs_corpus_is_not_run(
    strange: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    setting: str,
    named: str,
) -> None:
    monkeypatch.syspath_prepend(strange)
    rename_corpus(strange / "run", **{setting: named})
    words, more = VERBS[verb]
    assert command(monkeypatch, *words, "run", *more) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "config.yaml names as text the function" in said or "nothing was measured" in said
    assert f"--corpus '{named}'" in said
    assert not (strange / "ran").exists()


def test_a_corpus_that_the_user_names_is_run(
    strange: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename_corpus(strange / "run", corpus="evil.py:texts")
    words = ["measure", "run", "--instruments", "language", "--corpus", "evil.py:texts"]
    assert command(monkeypatch, *words) == 0
    assert (strange / "ran").exists()


def test_training_on_a_function_goes_on_where_the_user_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file given with --config is the user's own; the run's copy of it is only compared."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    mine = tmp_path / "mine.yaml"
    mine.write_text(settings(tmp_path, "evil.py:texts").to_yaml())
    assert command(monkeypatch, "train", "--config", mine) == 0
    (tmp_path / "ran").unlink()
    assert command(monkeypatch, "train", "--config", mine, "--resume", "--steps", "1") == 0
    others = settings(tmp_path, "stories").to_yaml()
    mine.write_text(others)
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "ran").unlink(missing_ok=True)
    capsys.readouterr()
    assert command(monkeypatch, "train", "--config", mine, "--resume") == 2
    assert "data.corpus: evil.py:texts -> stories" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_wireworks_own_functions_may_be_named_by_a_file() -> None:
    for name in (*OURS, "python", "hub:a/b", "text.txt", None):
        refuse_saved_function(name, "config.yaml names", "--corpus")
    for name in OURS:
        assert callable(load_function(name, "corpus"))


def test_the_refusal_is_one_short_line() -> None:
    long = f"{'a' * 5000}.py:f\n"
    with pytest.raises(InputError, match=r"name it yourself: --task") as caught:
        refuse_saved_function(long.strip(), "circuit.json names", "--task")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
