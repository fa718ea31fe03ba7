import sys

import pytest

from wirework.errors import InputError
from wirework.tasks import Pair, check_names, load_task

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from wirework.tasks import Pair

@dataclass
class Kind:
    name: str

def make_pair(rng):
    name = f"{rng.choice('abc')}{rng.randint(0, 999)}"
    return Pair((f"for {name}", f"while {name}"), (" in", ":"))

def few(rng):
    left, right = rng.sample("xyz", 2)
    return (f"{left} {right}", f"{right} {left}"), (f" {left}", f" {right}")

def lists(rng):
    return [["a", "b"], ["c", "d"]]

def raises(rng):
    raise KeyError("two\\nlines")

def leaves(rng):
    raise SystemExit(0)

def one_text(rng):
    return "text"

def three(rng):
    return ("a", "b", "c"), ("d", "e")

def numbers(rng):
    return (1, 2), (3, 4)

def equal(rng):
    return ("a", "a"), ("b", "c")

constant = 3
"""


@pytest.fixture
def tasks_file(tmp_path):
    path = tmp_path / "my_tasks.py"
    path.write_text(GOOD)
    return path


def test_a_function_of_a_file_makes_a_task_that_can_be_made_again(tasks_file, tokenizer) -> None:
    task = load_task(f"{tasks_file}:make_pair", seed=3)
    assert (task.name, task.seed, task.path) == ("make_pair", 3, f"{tasks_file}:make_pair")
    assert len({pair.content for pair in task.pairs}) == 1024
    assert load_task(task.path, seed=task.seed, n=len(task.pairs)) == task
    assert load_task(task.path, seed=3, n=10).pairs == task.pairs[:10]
    assert load_task(task.path, seed=4).pairs != task.pairs
    assert task.generated
    longest = max(len(tokenizer.encode(pair.prompts[0])) for pair in task.pairs)
    assert 16 <= len(task.fitted(tokenizer, longest - 1).pairs) < 1024


def test_a_function_of_a_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "wirework_test_pairs.py").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    task = load_task("wirework_test_pairs:lists")
    assert task.pairs == (Pair(("a", "b"), ("c", "d")),)
    sys.modules.pop("wirework_test_pairs")


def test_a_function_may_have_few_pairs_and_a_turned_one_is_the_same(tasks_file) -> None:
    task = load_task(f"{tasks_file}:few")
    assert len(task.pairs) == 3
    with pytest.raises(InputError, match="4 distinct pairs were asked for, there are about 3"):
        load_task(f"{tasks_file}:few", n=4)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("make_pear", r"my_tasks.py has no function 'make_pear'; did you mean 'make_pair'"),
        ("constant", "'constant' is of type int, wanted a function"),
        ("raises", "raises raised KeyError: 'two.*lines'$"),
        ("leaves", "leaves raised SystemExit: 0$"),
        ("one_text", r"must return a Pair or two prompts and two answers.*got 'text'"),
        ("three", "must return a Pair"),
        ("numbers", "must return a Pair"),
        ("equal", "returned no pair: the two prompts of a pair must differ"),
    ],
)
def test_what_is_wrong_with_a_function_is_one_line(tasks_file, function, problem) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load_task(f"{tasks_file}:{function}")
    assert "\n" not in str(caught.value)


def test_places_that_have_no_function(tmp_path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def make(:\n")
    needs = tmp_path / "needs.py"
    needs.write_text("import wirework_nowhere\n")
    with pytest.raises(InputError, match=r"no file .*absent\.py"):
        load_task(f"{tmp_path}/absent.py:make")
    with pytest.raises(InputError, match=r"broken\.py raised SyntaxError: .*line 1"):
        load_task(f"{broken}:make")
    with pytest.raises(InputError, match=r"raised ModuleNotFoundError: .*wirework_nowhere"):
        load_task(f"{needs}:make")
    with pytest.raises(InputError, match=r"no module 'wirework_nowhere'.*wirework_nowhere\.py:"):
        load_task("wirework_nowhere:make")
    with pytest.raises(InputError, match=r"no module 'wirework\.nowhere'"):
        load_task("wirework.nowhere:make")
    with pytest.raises(InputError, match=r"say which function .*broken\.py:function"):
        load_task(broken)


def test_names_of_functions_are_known_unrun() -> None:
    check_names(["for_while", "my_tasks.py:make_pair", "a.b:c"])
    with pytest.raises(InputError, match="no task or file 'for_while:'"):
        check_names(["for_while:"])


def test_prompts_that_no_model_reads_are_refused(tmp_path) -> None:
    (tmp_path / "long.py").write_text(
        "def make(rng): return (' ' * 20_000_000, 'b'), (' c', ' d')\n"
        "def half(rng): return ('\\ud800', 'b'), (' c', ' d')\n"
    )
    with pytest.raises(InputError, match=r"returned no pair: prompts have at most") as caught:
        load_task(f"{tmp_path}/long.py:make")
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match="half a character"):
        load_task(f"{tmp_path}/long.py:half")
