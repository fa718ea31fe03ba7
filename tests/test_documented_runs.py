"""Commands of the documentation run, in the order of their page, on models as small as can be.

Where a flag decides how long a command takes, `SMALL` gives it a lesser value; nothing else of a
line is changed.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import run_here

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md", "docs/acdc.md", "docs/explain.md", "docs/measures.md", "docs/self_ablation.md",
)  # fmt: skip
SHAPE = {
    "--model.n-layer": "2", "--model.d-model": "32", "--model.n-ctx": "64",
    "--model.vocab-size": "800", "--data.vocab-size": "800", "--data.workers": "1",
    "--data.max-bytes": "600000", "--data.tokenizer-bytes": "600000", "--steps": "2",
    "--batch-size": "4", "--eval-batches": "1", "--precision": "float32",
}  # fmt: skip
SAE = {"tokens": "5120", "eval-tokens": "512", "buffer": "2048"}
EXCERPTS = {"neurons": "2", "explain-excerpts": "64", "score-excerpts": "64"}
SMALL = {
    "train": SHAPE,
    "tasks": {"--task": "single_double_quote"},
    "prune": {
        "--steps": "1", "--trials": "1", "--eval-pairs": "8", "--batch-pairs": "4",
        "--allow-unreached": "",
    },
    "validate": {"--short": ""},
    "attack": {"--pairs": "8"},
    "acdc": {"--pairs": "4"},
    "sae": {f"--{name}": value for name, value in SAE.items()},
    "explain": {f"--{name}": value for name, value in EXCERPTS.items()},
    "measure": {
        "--n-tokens": "512", "--acdc.pairs": "4",
        **{f"--sae.{name}": value for name, value in SAE.items()},
        **{f"--explain.{name}": value for name, value in EXCERPTS.items()},
    },
}  # fmt: skip
NOT_RUN = {
    r"^demo": "minutes of training: tests/test_demo.py",
    r"^view": "serves until Ctrl-C: tests/view/page/test_server.py",
    r"^study": "hours of training: tests/studies",
    r"language_model": "asks a server: tests/measures/explain/test_explain_command.py",
    r"DIR OUT": "stands for files of others: tests/interop",
    r"runs/big": "stands for a model of the reader's",
}
"""Commands that do not run here, with the reason and the tests that run them."""


def commands(page: str) -> list[str]:
    """Return the lines of a page's shell blocks that call `wirework`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.startswith("wirework ")]


def made_small(line: str) -> list[str]:
    """Return the words of a command, with lesser numbers where they decide its time."""
    words = shlex.split(line, comments=True)[1:]
    for flag, value in SMALL.get(words[0], {}).items():
        if flag in words:
            words[words.index(flag) + 1] = value
        elif flag != "--neurons" or "--only" not in words:
            words += [flag, value] if value else [flag]
    return words


def run(line: str, folder: Path) -> None:
    ended = run_here(*made_small(line), cwd=folder)
    assert ended.returncode == 0, f"{line}\n{ended.stderr}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with the recipes, the demo's run and those that README trains."""
    folder = tmp_path_factory.mktemp("documented")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    run("wirework train --config recipes/demo.yaml --name demo", folder)
    for line in commands("README.md"):
        if line.startswith("wirework train "):
            run(line, folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")  # of sae-lens
@pytest.mark.usefixtures("few_random_circuits")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, trained: Path, tmp_path: Path) -> None:
    # A copy for each page: two pages may write to the same place.
    folder = shutil.copytree(trained, tmp_path / "page")
    for line in dict.fromkeys(commands(page)):
        words = line.removeprefix("wirework ")
        if words.startswith("train ") and line in commands("README.md"):
            continue  # the fixture ran it
        if not any(re.search(pattern, words) for pattern in NOT_RUN):
            run(line, folder)
