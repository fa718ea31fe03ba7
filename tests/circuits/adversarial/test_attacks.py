import io
import tokenize
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from present import present

from wirework.circuits.adversarial.attacks import (
    COMMENT,
    DECOY,
    GENERIC,
    LENGTHEN,
    NEUTRAL,
    OTHER_NAME,
    REPEAT,
    Attack,
    can_end,
    insert,
    insert_in_string,
    keeps_answers,
    neutral_lines,
    open_ends,
)
from wirework.circuits.adversarial.padding import Padding
from wirework.data import Tokenizer
from wirework.tasks import PYTHON_TASKS, Pair, load_task

BRACKETS = Pair(("x = 1\ny = [3, 4", "x = 1\ny = [[3, 4"), ("]", "]]"))
QUOTES = Pair(("import os\nprint('not found", 'import os\nprint("not found'), ("')", '")'))
UNMATCHED = insert(" value[", "unmatched")


def code(text: str) -> list[str]:
    """The tokens of a whole program by Python's own tokeniser, comments and layout left out."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type not in layout]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("x = [[1, 2], [3", "[["),
        ("print('a\"b", "('"),
        ("print('a\\'b', \"c", '("'),
        ("# [ ' \nf({'a': 1}, [", "(["),
        ("x = '''a'b", ["'''"]),
        ("x = '' + ''", ""),
        ("'a[(#'", ""),
    ],
)
def test_what_is_open(text: str, left: str | list[str]):
    assert [opener for opener, _ in open_ends(text)] == list(left)
    assert all(text[:end].endswith(opener) for opener, end in open_ends(text))


def test_the_parser_tells_right_from_wrong():
    for pair in (BRACKETS, QUOTES):
        verdicts = [[can_end(prompt + a) for a in pair.answers] for prompt in pair.prompts]
        assert verdicts == [[True, False], [False, True]]
    assert can_end("for x in")
    assert can_end("while x:")
    assert not can_end("for x:")
    assert not can_end("with open('a', 'r")
    assert can_end("with open('a', 'r", closing=True)


class TestAttacks:
    @given(
        name=st.sampled_from(sorted(PYTHON_TASKS)),
        number=st.integers(0, 30),
        attack=st.sampled_from([*GENERIC, UNMATCHED, insert(" value('\"", "quotes")]),
        strength=st.sampled_from([1, 2, 5]),
    )
    @settings(max_examples=60, deadline=None)
    def test_attacks_keep_the_right_answers_right(self, name, number, attack, strength):
        pair = load_task(name, n=31).pairs[number]
        after = attack(pair, strength, Random(0))
        if after is None:
            assert attack in (LENGTHEN, REPEAT, OTHER_NAME)
            return
        assert after.answers == pair.answers
        assert keeps_answers(pair, after)
        for before, now in zip(pair.prompts, after.prompts, strict=True):
            assert len(now) > len(before)
            same_last = now.rpartition("\n")[2] == before.rpartition("\n")[2]
            assert same_last or attack is LENGTHEN
            assert [opener for opener, _ in open_ends(now)] == [o for o, _ in open_ends(before)]

    @pytest.mark.parametrize("attack", [COMMENT, DECOY, UNMATCHED])
    @pytest.mark.parametrize("pair", [BRACKETS, QUOTES])
    def test_a_comment_changes_no_code(self, attack: Attack, pair: Pair):
        after = present(attack(pair, 3, Random(1)))
        for before, now, answer in zip(pair.prompts, after.prompts, pair.answers, strict=True):
            assert code(now + answer) == code(before + answer)
            assert now != before

    def test_what_each_attack_does(self):
        assert present(UNMATCHED(BRACKETS, 2, Random(0))).prompts[1] == (
            "# value[ value[ value\nx = 1\ny = [[3, 4"
        )
        assert present(DECOY(BRACKETS, 1, Random(0))).prompts[0] == "# y = [[3, 4\nx = 1\ny = [3, 4"
        assert (
            present(REPEAT(BRACKETS, 2, Random(0))).prompts[0] == "x = 1\nx = 1\nx = 1\ny = [3, 4"
        )
        longer = present(LENGTHEN(BRACKETS, 5, Random(0))).prompts
        assert longer[1].startswith("x = 1\ny = [[")
        assert longer[1].count(",") == BRACKETS.prompts[1].count(",") + 5
        assert longer[0] == longer[1].replace("[[", "[")
        words = present(LENGTHEN(QUOTES, 3, Random(0))).prompts[0]
        assert len(words.split("'")[1].split()) == 5
        assert words.endswith(" not found")
        assert UNMATCHED(BRACKETS, 0, Random(0)) is BRACKETS
        assert present(NEUTRAL(BRACKETS, 3, Random(0))).prompts[0].count("\n") == 4

    def test_the_other_value_is_given_to_another_name_after_the_line_that_differs(self):
        prompts = ("def f():\n    a = set()\n    a", 'import re\ndef f():\n    a = ""\n    a')
        pair = Pair(prompts, (".add", " +="))
        first, second = present(OTHER_NAME(pair, 2, Random(0))).prompts
        start, *added, last = first.split("\n")[1:]
        assert (start, last) == ("    a = set()", "    a")
        names = [line.removesuffix(' = ""').strip() for line in added]
        assert len(set(names)) == 2
        assert "a" not in names
        assert [line for line in second.split("\n") if line.endswith(" = set()")] == [
            f"    {name} = set()" for name in names
        ]

    def test_without_an_assignment_that_differs_there_is_no_other_value(self):
        assert OTHER_NAME(BRACKETS, 1, Random(0)) is None
        assert OTHER_NAME(QUOTES, 1, Random(0)) is None

    def test_no_more_names_than_there_are_free_words(self):
        pair = Pair(("a = set()\na", 'a = ""\na'), (".add", " +="))
        assert OTHER_NAME(pair, 10_000, Random(0)) is None

    def test_a_text_in_the_open_string_changes_one_prompt(self):
        inner = insert_in_string(" value'", 1, "inner quote")
        plain, changed = present(inner(QUOTES, 2, Random(0))).prompts
        assert plain == "import os\nprint('value value not found"
        assert changed == "import os\nprint(\"value' value' not found"

    def test_a_text_that_closes_the_string_is_refused(self):
        assert insert_in_string(" value'", 0, "closed")(QUOTES, 1, Random(0)) is None
        assert insert_in_string(' value"', 1, "closed")(QUOTES, 1, Random(0)) is None
        assert insert_in_string(" value", 0, "no string")(BRACKETS, 1, Random(0)) is None

    def test_what_would_make_another_answer_right_is_refused(self):
        def unmatched_in_code(pair: Pair, strength: int, _: Random):
            yield "[" * strength + pair.prompts[0], pair.prompts[1]

        assert Attack("bad", unmatched_in_code)(BRACKETS, 1, Random(0)) is None
        head = Pair(("def f(a):\n    x = [1", "def f(a):\n    x = [[1"), ("]", "]]"))
        assert REPEAT(head, 1, Random(0)) is None  # a function without a body

    def test_where_an_attack_does_not_apply(self):
        loop = Pair(("for x", "while x"), (" in", ":"))
        assert LENGTHEN(loop, 1, Random(0)) is None
        assert REPEAT(loop, 1, Random(0)) is None
        empty = Pair(("x = f('a', '", 'x = f("a", "'), ("')", '")'))
        assert LENGTHEN(empty, 1, Random(0)) is None  # an answer here would melt into the words


def test_neutral_lines_decide_nothing():
    lines = neutral_lines(Random(3), 200)
    assert len(lines) == 200
    assert not any(mark in line for line in lines for mark in "'\"[]{}")
    code("\n".join(lines) + "\n")  # parses


class TestPadding:
    @given(n_tokens=st.integers(0, 90), seed=st.integers(0, 5))
    @settings(max_examples=40, deadline=None)
    def test_padding_has_the_length_asked_for(self, tokenizer: Tokenizer, n_tokens: int, seed: int):
        text = Padding(tokenizer).text(n_tokens, Random(seed))
        assert abs(len(tokenizer.encode(text)) - n_tokens) <= 2
        assert text == "" or text.endswith("\n")

    def test_a_control_is_as_long_as_what_it_controls(self, tokenizer: Tokenizer):
        after = present(UNMATCHED(BRACKETS, 8, Random(0)))
        control = Padding(tokenizer).control(BRACKETS, after, Random(0))
        for text, prompt, before in zip(
            control.prompts, after.prompts, BRACKETS.prompts, strict=True
        ):
            assert abs(len(tokenizer.encode(text)) - len(tokenizer.encode(prompt))) <= 3
            assert text.endswith(before)
