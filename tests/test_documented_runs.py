"""The blocks of the documentation run, in the order of their page, on models as small as can be.

`documented.py` says what is left out, and which settings are made smaller.
"""

import re
import shutil
from pathlib import Path

import pytest
from command_line import run_here
from documented import (
    NOT_RUN,
    PAGES,
    ROOT,
    add_files_of_a_reader,
    blocks,
    is_run,
    names_of_a_reader,
    run_python,
    shell_lines,
    small_settings,
    small_words,
)

import wirework as ww
from wirework.tasks import BUILT_IN_TASKS, load
from wirework.tasks.earlier_tasks import EARLIER_TASKS

GOLDEN = ROOT / "tests" / "golden"
WITH_COMMANDS = [page for page in PAGES if any(is_run(page, line) for line in shell_lines(page))]
COMPLETE = {"CONTRIBUTING.md", "docs/bridges.md"}
"""Pages whose Python blocks other tests run: tests/test_contributing.py and
tests/bridges/test_hook_in_transformers.py."""
WITH_PYTHON = [page for page in PAGES if blocks(page, "python") and page not in COMPLETE]
QUICK = {
    "docs/acdc.md", "docs/data.md", "docs/explain.md", "docs/measures.md", "docs/self_ablation.md",
}  # fmt: skip
"""Pages whose Python blocks take well under a second."""
ON_TRAINED_RUNS = {"README.md", "docs/training.md"}
"""Pages whose Python blocks need recipes or two layers."""


def run(line: str, folder: Path) -> None:
    ended = run_here(*small_words(line), cwd=folder)
    assert ended.returncode == 0, f"{line}\n{ended.stderr}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder with the recipes, the demo's run and those that README trains."""
    folder = tmp_path_factory.mktemp("documented")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    run("wirework train --config recipes/demo.yaml --name demo", folder)
    for line in shell_lines("README.md"):
        if line.startswith("wirework train "):
            run(line, folder)
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy for each page, as two pages may write to the same place, with files of a reader."""
    folder = shutil.copytree(trained, tmp_path / "page")
    add_files_of_a_reader(folder)
    return folder


@pytest.fixture
def small_place(tmp_path: Path) -> Path:
    """A folder with a run of one layer that the tests have already, and files of a reader."""
    folder = tmp_path / "small"
    for name in ("demo", "local4"):
        shutil.copytree(GOLDEN / "runs" / "run", folder / "runs" / name)
    shutil.copytree(GOLDEN / "data", folder / "data")
    shutil.copy(GOLDEN / "text.jsonl", folder)
    add_files_of_a_reader(folder)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_every_line_of_a_shell_block_runs_or_has_a_reason_not_to(page: str) -> None:
    left = [line for line in shell_lines(page) if is_run(page, line)]
    assert [line for line in left if not line.startswith("wirework ")] == []


@pytest.mark.parametrize(("page", "start"), NOT_RUN)
def test_a_line_that_does_not_run_is_in_its_page(page: str, start: str) -> None:
    assert [line for line in shell_lines(page) if line.startswith(start)]


def test_every_block_with_a_command_is_a_shell_block() -> None:
    for page in PAGES:
        assert [text for text in blocks(page, "") if re.match(r"(wirework|make) ", text)] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The 'utils' module has been deprecated")  # of sae-lens
@pytest.mark.usefixtures("few_random_circuits")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run(page: str, place: Path) -> None:
    for line in dict.fromkeys(shell_lines(page)):
        if line.startswith("wirework train ") and line in shell_lines("README.md"):
            continue  # the fixture ran it
        if is_run(page, line):
            run(line, place)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page in QUICK else [pytest.mark.slow])
        for page in WITH_PYTHON
        if page not in ON_TRAINED_RUNS
    ],
)
def test_the_python_blocks_of_a_guide_run(
    page: str, small_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_place)
    # Most pairs of today do not fit the run's context of 32 tokens.
    monkeypatch.setattr(load, "BUILT_IN_TASKS", {**BUILT_IN_TASKS, **EARLIER_TASKS})
    # ACDC keeps no edge of a model that cannot do the task; this one is wired by hand.
    model = ww.load(GOLDEN / "model" if page == "docs/acdc.md" else "runs/demo")
    names = names_of_a_reader(model)
    with small_settings():
        run_python(page, names)


@pytest.mark.slow
@pytest.mark.usefixtures("few_random_circuits")
@pytest.mark.parametrize("page", sorted(ON_TRAINED_RUNS))
def test_the_python_blocks_that_train_run(
    page: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(place / "runs" / "mine")  # the blocks train it
    monkeypatch.chdir(place)
    with small_settings():
        run_python(page, {})
