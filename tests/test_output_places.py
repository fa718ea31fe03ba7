"""Places that cannot be written to, and a working folder that is gone: every verb says so first."""

import sys
from pathlib import Path

import pytest

from wirework.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

WRITING = {
    "acdc": "acdc absent task --out {}/x",
    "acdc, several tau": "acdc absent task --tau 0.1 --tau 0.2 --out {}/x",
    "prune": "prune absent task --out {}/x",
    "prune all": "prune absent --all --out {}/x",
    "prune, several circuits": "prune absent task --exhaust --out {}/x",
    "attack": "attack absent --out {}/x",
    "attribute": "attribute absent task --out {}/x",
    "convert openai": "convert openai absent {}/x",
    "convert self-ablating": "convert self-ablating absent {}/x",
    "convert huggingface": "convert huggingface absent {}/x",
    "convert interpbench": "convert interpbench absent {}/x",
    "convert to-huggingface": "convert to-huggingface absent {}/x",
    "demo": "demo --out {}/x",
    "explain": "explain absent --out {}/x",
    "explain-circuit": "explain-circuit absent --out {}/x",
    "export": "export absent --out {}/x",
    "measure": "measure absent --out {}/x",
    "sae": "sae absent --out {}/x",
    "study ablations": "study ablations --out {}/x",
    "study binarise": "study binarise absent --out {}/x",
    "study finders": "study finders absent --out {}/x",
    "study frontier": "study frontier --out {}/x",
    "study self-ablation": "study self-ablation --out {}/x",
    "train": "train --runs {}/x",
    "train, cache": "train --data.cache {}/x",
    "validate": "validate absent --runs 2 --out {}/x",
    "validate, report": "validate absent --report {}/x",
}
READING = ["view absent", "tasks", "doctor", "validate absent", "train --resume"]


@pytest.fixture
def says(monkeypatch, capsys):
    """Return a function that runs the command, which must refuse in one line; returns the line."""

    def run(words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["wirework", *words.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        return line

    return run


@pytest.mark.parametrize("verb", WRITING)
def test_a_place_below_links_in_a_circle_is_refused_before_the_work(
    verb, says, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    line = says(WRITING[verb].format("one"))
    assert line.startswith("wirework: cannot write one/x")
    assert line.endswith("Too many levels of symbolic links")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize("words", [*WRITING.values(), *READING])
def test_a_working_folder_that_is_gone_is_one_line(words, says, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    gone = "wirework: the working folder is gone: change to one that exists"
    assert says(words.format("place")) == gone


def test_a_page_is_not_written_over_a_folder(says, tmp_path):
    assert says(f"export absent --out {tmp_path}").endswith(
        f"cannot write {tmp_path}: it is a folder"
    )


def test_an_explanation_is_not_written_over_a_folder_with_other_files(says, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert says(f"explain-circuit absent --out {tmp_path}").endswith(
        f"{tmp_path} exists and is not an explanation: not overwritten"
    )
