import ast
import re

import pytest
from completion import completed

from wirework.data import ANSWERS
from wirework.tasks import PYTHON_TASKS, Pair, load_task, rephrased
from wirework.tasks.snippets import ANSWER_NAMES

TABLE_1 = (
    "single_double_quote", "bracket_counting", "set_or_string", "set_or_string_fixedvarname",
    "final_kwarg", "class_init", "with_as", "bracket_brace", "with_open", "for_while", "else_elif",
    "fstring_brace", "if_ternary", "var_swap", "indent_for", "lambda_func", "if_equals",
    "enumerate_range", "var_if", "while_return_true",
)  # fmt: skip

READ = {"input", "in", "source", "original", "old", "template", "read", "load", "raw"}
WRITE = {"output", "out", "result", "copy", "new", "report", "write", "save", "processed"}

BOTH = (
    "single_double_quote", "bracket_counting", "with_as", "bracket_brace", "else_elif",
    "if_ternary", "lambda_func", "var_if", "while_return_true",
)  # fmt: skip
ONE = {"for_while": (0,), "final_kwarg": (0,), "if_equals": (0,), "indent_for": (1,)}
SYNTAX_DECIDES = dict.fromkeys(BOTH, (0, 1)) | ONE
"""Tasks to the prompts after which the wrong answer is no Python."""


def rows(name: str, n: int, words_changed: bool):
    """Prompt, right and wrong answer, and which of its pair's prompts it is."""
    task = load_task(name, seed=11, n=n)
    for pair in (rephrased(task, 5) if words_changed else task).pairs:
        yield pair.prompts[0], *pair.answers, 0
        yield pair.prompts[1], *pair.answers[::-1], 1


def test_the_tasks_are_those_of_table_1_in_its_order() -> None:
    assert tuple(PYTHON_TASKS) == TABLE_1


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_there_are_a_thousand_distinct_pairs_and_the_seed_decides_them(name: str) -> None:
    first, again = load_task(name, seed=3), load_task(name, seed=3)
    assert first == again
    assert len({pair.content for pair in first.pairs}) == len(first.pairs) == 1024
    assert load_task(name, seed=4).pairs != first.pairs
    assert load_task(name, seed=3, n=10).pairs == first.pairs[:10]


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_pairs_held_out_are_none_of_those_trained_on(name: str) -> None:
    train, held_out = load_task(name, seed=3).split(0, 0.75)
    assert (len(train.pairs), len(held_out.pairs)) == (768, 256)
    seen = {text for pair in train.pairs for text in pair.content}
    twice = [pair for pair in held_out.pairs if pair.content <= seen]
    assert not twice


@pytest.mark.parametrize("changed", [False, True], ids=["drawn", "rephrased"])
@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_python_reads_every_prompt_with_its_right_answer(name: str, changed: bool) -> None:
    for prompt, right, _, _ in rows(name, 200, changed):
        ast.parse(completed(name, prompt, right))


@pytest.mark.parametrize("changed", [False, True], ids=["drawn", "rephrased"])
@pytest.mark.parametrize("name", SYNTAX_DECIDES)
def test_python_refuses_the_wrong_answer(name: str, changed: bool) -> None:
    for prompt, _, wrong, which in rows(name, 100, changed):
        if which in SYNTAX_DECIDES[name]:
            with pytest.raises(SyntaxError):
                ast.parse(completed(name, prompt, wrong))


def began_as(prompt: str) -> str:
    """What the variable at a prompt's end was last set to, as Python reads it."""
    name = prompt.split()[-1]
    *_, (_, value) = sorted(
        (node.lineno, ast.unparse(node.value))
        for node in ast.walk(ast.parse(completed("set_or_string", prompt, ".add")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    return value


def expected(name: str, prompt: str) -> str:
    """The right answer of a task that syntax does not decide, by a rule of this test's own."""
    last = prompt.splitlines()[-1]
    words = re.split(r"[^a-z]+", last.partition("open(")[2])
    named = re.search(r"self\.(?:_|my_|new_|\w+\.)?(\w+) =$", last)
    swap = re.search(r"(\w+), (\w+)\)? = \(?(\w+),$", last)
    match name:
        case "set_or_string" | "set_or_string_fixedvarname":
            return {"set()": ".add", "''": " +="}[began_as(prompt)]
        case "class_init":
            assert named
            assert named[1] in prompt.split("__init__")[1].split(")")[0].split("(self, ")[1]
            return f" {named[1]}"
        case "with_open":
            assert bool(READ & set(words)) != bool(WRITE & set(words))
            return "r" if READ & set(words) else "w"
        case "fstring_brace":
            return " {" if last.count('f"') else '",'
        case "var_swap":
            assert swap
            assert swap[2] == swap[3] != swap[1]
            return f" {swap[1]}"
        case "enumerate_range":
            return " enumerate" if "," in last else " range"
        case "indent_for":
            return " " * (len(last) - len(last.lstrip()) + 3)
    raise AssertionError(name)


MEANING_DECIDES = (
    "set_or_string", "set_or_string_fixedvarname", "class_init", "with_open", "fstring_brace",
    "var_swap", "enumerate_range", "indent_for",
)  # fmt: skip


@pytest.mark.parametrize("changed", [False, True], ids=["drawn", "rephrased"])
@pytest.mark.parametrize("name", MEANING_DECIDES)
def test_the_right_answer_is_the_one_the_prompt_means(name: str, changed: bool) -> None:
    for prompt, right, wrong, _ in rows(name, 200, changed):
        assert expected(name, prompt) == right != wrong


def test_every_task_is_decided_by_syntax_or_by_meaning() -> None:
    assert set(SYNTAX_DECIDES) | set(MEANING_DECIDES) == set(PYTHON_TASKS)


def test_after_elif_comes_what_the_if_was_about() -> None:
    for prompt, right, _, which in rows("else_elif", 200, False):
        if which == 1:
            indent = prompt.splitlines()[-1].removesuffix("elif")
            (*_, head) = (ln for ln in prompt.splitlines() if ln.startswith(f"{indent}if "))
            assert re.match(rf"{indent}if{right}\b", head)


def shorter(prompt: str) -> str:
    """A prompt without the imports that make it longer."""
    head, *rest = prompt.split("\n")
    while rest[0].startswith("import "):
        del rest[0]
    return "\n".join([head, *rest])


def apart(pair: Pair) -> tuple[str, str]:
    """The two prompts without the words that they begin and end with in common."""
    left, right = (re.findall(r"\w+|\W", shorter(prompt)) for prompt in pair.prompts)
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return "".join(left), "".join(right)


DIFFERENCES = {
    "single_double_quote": ("'", '"'),
    "bracket_counting": ("", r"\["),
    "set_or_string": (r"set\(\)", "''|\"\""),
    "set_or_string_fixedvarname": (r"set\(\)", "''|\"\""),
    "final_kwarg": (r"=\w+(, \w+=\w+)*", r"(, \w+)*"),
    "class_init": (r"\w+", r"\w+"),
    "with_as": ("with", r"\w+ ="),
    "bracket_brace": (r"\{\w+:( \w+, \w+:)*", r"\[\w+,( \w+, \w+,)*"),
    "with_open": (r"\w+", r"\w+"),
    "for_while": ("for", "while"),
    "else_elif": ("else", "elif"),
    "fstring_brace": ("f", ""),
    "if_ternary": ("", r"\w+(\.\w+)? = \w+(\.\w+)? "),
    "var_swap": (r"\w+, \w+\)? = \(?\w+", r"\w+, \w+\)? = \(?\w+"),
    "indent_for": ("", "    "),
    "lambda_func": (r"\w.*lambda", "(async )?def"),
    "if_equals": ("(if|while|assert) ", ""),
    "enumerate_range": (r", \w+", ""),
    "var_if": (r"(if|while) \w+(\.\w+)? (is|=|is not|!)=?", r"\w+(\.\w+)? =?"),
    "while_return_true": ("while", "return"),
}
"""By task, all that may differ between a pair's prompts."""


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_the_prompts_of_a_pair_differ_only_in_what_decides(name: str) -> None:
    for pair in load_task(name, n=200).pairs:
        for text, form in zip(apart(pair), DIFFERENCES[name], strict=True):
            assert re.fullmatch(form, text), (text, pair.prompts)


@pytest.mark.parametrize("name", ["set_or_string", "set_or_string_fixedvarname"])
def test_what_decides_lies_lines_before_the_end(name: str) -> None:
    for pair in load_task(name, n=200).pairs:
        assert pair.prompts[0].partition("set()")[2].count("\n") >= 2


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_contexts_are_of_many_kinds(name: str) -> None:
    prompts = [prompt for pair in load_task(name, n=400).pairs for prompt in pair.prompts]
    lasts = {prompt.splitlines()[-1] for prompt in prompts}
    indents = {len(last) - len(last.lstrip()) for last in lasts}
    assert len({tuple(prompt.splitlines()[:2]) for prompt in prompts}) > 150
    assert len(indents) >= (1 if name == "class_init" else 2)
    for kind in ("import ", "# ", "def ", " = ", "("):
        assert sum(kind in prompt for prompt in prompts) > 20, kind


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_each_answer_is_one_token_of_a_default_tokeniser_and_prompts_are_short(
    name: str, code_tokenizer
) -> None:
    task = load_task(name)
    fitted = task.fitted(code_tokenizer, 256)
    assert len(fitted.pairs) >= 0.95 * 1024
    prompts = [prompt for pair in task.pairs for prompt in pair.prompts]
    lengths = sorted(map(len, code_tokenizer.encode_batch(prompts)))
    assert lengths[0] >= 4
    assert lengths[round(0.85 * 2048)] <= 60
    assert lengths[-1] <= 110


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_rephrased_pairs_fit_too(name: str, code_tokenizer) -> None:
    task = rephrased(load_task(name, n=256), 0)
    assert len(task.fitted(code_tokenizer, 140).pairs) >= 0.95 * 256


def test_the_tokeniser_is_made_for_every_answer() -> None:
    known = {answer.text for answer in ANSWERS}
    for name in PYTHON_TASKS:
        assert set(load_task(name).answers) <= known
    assert {f" {name}" for name in ANSWER_NAMES} <= known
