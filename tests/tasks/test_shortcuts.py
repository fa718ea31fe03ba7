import pytest

from wirework.errors import InputError
from wirework.tasks import PYTHON_TASKS, Pair, Task
from wirework.tasks.shortcuts import shortcuts


def test_length_and_last_token_are_told_apart() -> None:
    names = [f"n{i}" for i in range(40)]
    by_length = [Pair((f"{a} x", f"{a} {a} {a} x"), ("u", "v")) for a in names]
    found = shortcuts(Task("length", tuple(by_length)))
    assert (found.length, found.last_token, found.longer_first) == (1.0, 0.5, 0.0)
    by_token = [Pair((f"{a} x", f"{a} y"), ("u", "v")) for a in names]
    found = shortcuts(Task("token", tuple(by_token)))
    assert (found.length, found.last_token, found.longer_first) == (0.5, 1.0, None)
    assert found.suspicious


def test_a_prompt_of_spaces_is_one_token() -> None:
    pairs = tuple(Pair((" " * n, f"x{n} y"), ("u", "v")) for n in range(1, 41))
    found = shortcuts(Task("spaces", pairs))
    assert (found.length, found.longer_first) == (1.0, 0.0)


@pytest.mark.parametrize("name", PYTHON_TASKS)
def test_only_else_elif_is_told_by_length_or_last_token(name: str) -> None:
    """The answer after `else` and `elif` follows from the keyword, as the paper defines it."""
    found = shortcuts(name)
    assert found.length < 0.6
    assert found.lines < 0.56
    assert (found.last_token > 0.99) == (name == "else_elif")
    assert found.last_token < 0.55 or name == "else_elif"
    if found.longer_first is not None:
        assert 0.1 < found.longer_first < 0.9


def test_a_models_tokens_count(code_tokenizer) -> None:
    class Shape:
        n_ctx = 256

    class Model:
        tokenizer, config = code_tokenizer, Shape()

    found = shortcuts("lambda_func", Model())
    assert found.length < 0.6


def test_a_model_without_tokeniser_is_refused() -> None:
    class Model:
        tokenizer, path = None, None

    with pytest.raises(InputError, match="needs a model with a tokeniser"):
        shortcuts("lambda_func", Model())
