"""The documentation names no command, flag or Python name that is not there."""

import re
import shlex
from functools import cache
from operator import attrgetter
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError, MissingArgumentError

import wirework
from wirework.menu import GROUPS, VERBS, app

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "docs", "studies/results/*", "benchmarks", "tests/hostile")
PAGES = [
    str(page.relative_to(ROOT))
    for folder in FOLDERS
    for page in sorted(ROOT.glob(f"{folder}/*.md"))
]
OTHERS = {"--signal"}
"""Flags of other programs: Slurm's."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def in_prose(text: str) -> list[str]:
    return re.findall(
        r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )


def is_command(line: str) -> bool:
    return re.match(r"wirework [a-z-]+", line) is not None


def parse(line: str) -> None:
    """Parse a command line as the command does, without running it or reading `--config`."""
    words = shlex.split(re.sub(r"\.\.\.|\| .*", "", line), comments=True)[1:]
    if "--config" in words:
        place = words.index("--config")
        assert (ROOT / words[place + 1]).is_file(), f"{words[place + 1]} is not there"
        del words[place : place + 2]
    app.parse_args(words, exit_on_error=False, print_error=False)


def completed(line: str) -> str:
    """Add to a command line what it needs and leaves out, as prose may."""
    line = re.sub(r"\bN\b", "1", line.replace("...", ""))
    for _ in range(5):
        try:
            parse(line)
        except MissingArgumentError as error:
            name = error.argument.name if error.argument else ""
            line += " 1" if not name.startswith("-") or line.endswith(name) else f" {name} 1"
        else:
            break
    return line


@cache
def flags() -> set[str]:
    """Return every flag of every verb, of `wirework` itself and of scripts that pages name."""
    verbs = [(group, verb) for group in VERBS for verb in VERBS[group] if verb not in GROUPS]
    parsers: list[App] = [
        app.meta,
        *((app[group] if group else app)[verb] for group, verb in verbs),
    ]
    known = {
        name
        for one in parsers
        for argument in one.assemble_argument_collection()
        for name in argument.names
    }
    scripts = "".join(
        path.read_text() for path in [*ROOT.glob("benchmarks/*.py"), ROOT / "tests/hostile/run.py"]
    )
    return (
        known
        | set(re.findall(r'add_argument\("(--[a-z-]+)"', scripts))
        | {"--help", "--help-all", "--version"}
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_parse(page: str):
    text = read(page)
    shown = [line for block in blocks(text) for line in block.replace("\\\n", "").splitlines()]
    for line in filter(is_command, shown):
        try:
            parse(line)
        except CycloptsError as error:
            pytest.fail(f"{page}: {line}: {error}")
    for line in filter(is_command, in_prose(text)):
        try:
            parse(completed(line))
        except CycloptsError as error:
            pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("page", PAGES)
def test_the_flags_that_a_page_names_are_there(page: str):
    named = {
        flag
        for code in in_prose(read(page))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*(?:\.[a-z-]+)*", code)
        if not code.startswith("pip ")
    }
    assert named - flags() - OTHERS == set()


@pytest.mark.parametrize("page", PAGES)
def test_the_python_names_of_a_page_are_there(page: str):
    for name in set(re.findall(r"\bww\.([a-zA-Z_.]*[a-zA-Z_])", read(page))):
        assert name.split(".")[0] in wirework.__all__
        attrgetter(name)(wirework)


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_installed_by_name_before_there_is_a_release(page: str):
    assert not re.findall(r"pip install '?wirework", read(page))
