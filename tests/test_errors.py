import pytest

from wirework.errors import InputError, nearest, number_of, quoted, reason, translated_errors


class TestTranslatedErrors:
    def test_an_error_of_another_library_becomes_one_line_and_keeps_its_cause(self):
        cause = RuntimeError("first line\nsecond line")
        said = r"^cannot read x: first line second line$"
        with pytest.raises(InputError, match=said) as caught, translated_errors("cannot read x"):
            raise cause
        assert caught.value.__cause__ is cause

    def test_our_own_error_passes_as_it_is(self):
        own = InputError("mine")
        with pytest.raises(InputError) as caught, translated_errors("cannot read x"):
            raise own
        assert caught.value is own

    def test_ctrl_c_is_not_translated(self):
        with pytest.raises(KeyboardInterrupt), translated_errors("cannot read x"):
            raise KeyboardInterrupt

    def test_memory_errors_say_so(self):
        said = "cannot read x: not enough memory"
        with pytest.raises(InputError, match=said), translated_errors("cannot read x"):
            raise MemoryError


class TestReason:
    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (KeyError("train"), "KeyError: 'train'"),
            (EOFError(), "EOFError"),
            (OSError(5, "Input/output error", "weights"), "Input/output error"),
            (ValueError("a  b\n c"), "a b c"),
        ],
    )
    def test_reason(self, error, said):
        assert reason(error) == said

    def test_reason_is_cut(self):
        assert len(reason(ValueError("x" * 10_000))) == 200


def test_quoted_is_cut_and_takes_any_integer():
    assert quoted("x" * 1000) == "'" + "x" * 76 + "..."
    assert quoted(10**5000) == "an integer too long to print"
    assert quoted(3) == "3"


def test_quoted_ends_for_parts_that_hold_themselves_many_times():
    value: list = []
    for _ in range(60):
        value = [value, value]
    assert len(quoted(value)) <= 80
    assert quoted({"a": [1, 2]}) == "{'a': [1, 2]}"


def test_nearest_of_a_very_long_name_is_quick():
    assert nearest("x" * 10_000_000, ["steps"]) == ""


def test_a_message_is_one_line_without_what_turns_text():
    said = str(InputError("no task 'a\n\x1b[31m\u202e\ud800b\u00e9'"))
    assert said == "no task 'a\\n\\x1b[31m\\u202e\\ud800b\u00e9'"


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "pair", "1 pair"), (0, "pair", "0 pairs"), (2048, "token", "2048 tokens"),
        (1, "process", "1 process"), (2, "process", "2 processes"), (3, "entry", "3 entries"),
    ],
)  # fmt: skip
def test_counts_have_their_noun_in_the_right_number(count, noun, words):
    assert number_of(count, noun) == words
