import ast
import resource
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from itertools import islice, pairwise
from pathlib import Path

import pytest

from wirework.data.programs import bounded, programs, source_files
from wirework.data.programs.grammar import read_rules
from wirework.data.programs.words import singular

N_PROGRAMS = 1500
SHA256_OF_SEED_0 = "6876da4556b26daa238dd0a6c1acdba17ba8ad95d0dbf6b8a78afc8a278212fa"
"""Of the first 200 programs. Another one means another corpus: tokens and models change with it."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(islice(programs(7), N_PROGRAMS))


def test_every_program_parses(texts: list[str]) -> None:
    for text in texts:
        ast.parse(text)


def test_a_seed_decides_the_programs(texts: list[str]) -> None:
    assert list(islice(programs(7), 20)) == texts[:20]
    assert list(islice(programs(8), 20)) != texts[:20]


def test_the_text_of_a_seed_never_changes() -> None:
    text = "".join(islice(programs(0), 200))
    assert sha256(text.encode()).hexdigest() == SHA256_OF_SEED_0


def test_programs_are_distinct(texts: list[str]) -> None:
    assert len(set(texts)) == len(texts)
    lines = {line for text in texts for line in text.splitlines() if len(line) > 30}
    assert len(lines) > 3 * len(texts)


def test_bounded_ends_with_the_program_that_reaches_the_size(texts: list[str]) -> None:
    assert list(bounded(7, 3000)) == texts[: len(list(bounded(7, 3000)))]
    sizes = [len(text.encode()) for text in bounded(7, 3000)]
    assert sum(sizes[:-1]) < 3000 <= sum(sizes)


def limited() -> None:
    """Limit time, memory and files of a child process."""
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def run_in_sandbox(text: str, folder: Path) -> int:
    """Run a program in an empty folder, without the user's packages; return its exit status."""
    command = [sys.executable, "-I", "-S", "-c", text]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=20, preexec_fn=limited, env={}
        )
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


def test_most_programs_run(texts: list[str], tmp_path: Path) -> None:
    statuses = []
    for number, text in enumerate(texts[:40]):
        folder = tmp_path / str(number)
        folder.mkdir()
        statuses.append(run_in_sandbox(text, folder))
    assert statuses.count(0) >= 0.9 * len(statuses)


CONSTRUCTS: dict[str, Callable[[ast.AST], bool]] = {
    "class": lambda node: isinstance(node, ast.ClassDef),
    "list of lists": lambda node: (
        isinstance(node, ast.List) and any(isinstance(item, ast.List) for item in node.elts)
    ),
    "dict": lambda node: isinstance(node, ast.Dict) and len(node.keys) > 1,
    "comprehension": lambda node: isinstance(node, ast.ListComp),
    "f-string": lambda node: isinstance(node, ast.JoinedStr),
    "with": lambda node: isinstance(node, ast.With),
    "ternary": lambda node: isinstance(node, ast.IfExp),
    "lambda": lambda node: isinstance(node, ast.Lambda),
    "while True": lambda node: (
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and node.test.value is True
    ),
    "swap": lambda node: (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
        and ast.dump(node.targets[0].elts[0]).replace("Store", "Load")
        == ast.dump(node.value.elts[-1])
    ),
    "default None": lambda node: (
        isinstance(node, ast.arguments)
        and any(isinstance(value, ast.Constant) and value.value is None for value in node.defaults)
    ),
    "enumerate": lambda node: isinstance(node, ast.Name) and node.id == "enumerate",
    "empty set": lambda node: (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "set"
        and not node.args
    ),
    "elif": lambda node: (
        isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
    ),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_behaviours_occur_by_nature(construct: str, texts: list[str]) -> None:
    matches = CONSTRUCTS[construct]
    with_it = sum(any(map(matches, ast.walk(ast.parse(text)))) for text in texts[:600])
    assert with_it >= 20


@pytest.mark.parametrize("quote", ["'", '"'])
def test_both_quotes_close_calls(quote: str, texts: list[str]) -> None:
    assert sum(f"{quote})" in text for text in texts) > 0.3 * len(texts)


def test_imports_are_followed_by_an_import_or_an_empty_line(texts: list[str]) -> None:
    """Prompts of the tasks begin with an import and a statement, so none can be in a program."""
    for text in texts:
        lines = text.splitlines()
        for line, after in pairwise(lines):
            if line.startswith(("import ", "from ")):
                assert after == "" or after.startswith("import ")


def test_every_source_file_counts() -> None:
    names = {path.name for path in source_files()}
    assert {"grammar.txt", "words.txt", "program.py", "slots.py", "grammar.py"} <= names


@pytest.mark.parametrize(
    ("plural", "expected"),
    [("users", "user"), ("new_cities", "city"), ("self.items", "item"), ("data", None),
     ("boss", None)],
)  # fmt: skip
def test_singular(plural: str, expected: str | None) -> None:
    assert singular(plural) == expected


def test_a_grammar_with_an_unknown_slot_is_refused() -> None:
    slots = {"label": lambda *_: "", "each": lambda *_: ""}
    with pytest.raises(ValueError, match="no slot \\$nothing"):
        read_rules("int:\n- $nothing\n", slots)
