from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wirework.tasks.snippets import ANSWER_NAMES, FILE_NAMES, NAMES, body, code_before


@given(st.integers())
def test_code_before_is_python_that_goes_on_at_its_indentation(seed: int) -> None:
    text, indent, _ = code_before(Random(seed))
    compile(f"{text}{indent}pass\n", "code", "exec")
    assert indent in ("", " " * 4, " " * 8)
    assert text.endswith("\n")
    assert not set("'\"[]{}") & set(text)


@given(st.integers())
def test_inside_a_function_return_may_stand(seed: int) -> None:
    text, indent, _ = code_before(Random(seed), inside=True)
    compile(f"{text}{indent}return True\n", "code", "exec")


@given(st.integers())
def test_a_body_is_all_of_a_block(seed: int) -> None:
    compile(f"if size:\n    {body(Random(seed))}\n", "code", "exec")


def test_groups_of_names_are_apart() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(ANSWER_NAMES) | set(FILE_NAMES) <= set(NAMES)
    assert not set(ANSWER_NAMES) & set(FILE_NAMES)
