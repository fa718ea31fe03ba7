from random import Random

import pytest

from wirework.data.stories.grammar import Grammar
from wirework.data.stories.notation import read_notation


def drawn(source: str, rule: str = "text", n: int = 200, **slots: str) -> set[str]:
    grammar, rng = Grammar([source]), Random(0)
    return {grammar.draw(rule, dict(slots), rng.random) for _ in range(n)}


def test_lists_and_rules_are_read_over_several_lines():
    source = "# note\ncolors = red,\n  blue\nsay:\n- One way\n  goes on.\n\n- Another, so.\n"
    assert read_notation([source]) == (
        {"colors": ("red", "blue")},
        {"say": ["One way goes on.", "Another, so."]},
    )


def test_brackets_nest_and_every_way_comes_up():
    assert drawn("text:\n- a[b|c[d|]|]e\n- {x}!", x="X") == {"abe", "acde", "ace", "ae", "X!"}


def test_a_kept_word_stays_and_is_another_than_what_is_kept():
    source = "w = a, b\ntext:\n- <one:w> <two:w> {one} {two}"
    assert drawn(source) == {"a b a b", "b a b a"}


def test_forms_of_lists_and_slots():
    source = "n = box\nv = run fast\ntext:\n- <n.s> <v.past> <k:v> {k.ing} {k}"
    assert drawn(source) == {"boxes ran fast run fast running fast run fast"}


def test_early_words_come_more_often_and_late_ones_come():
    grammar, rng = Grammar(["w = a, b, c, d\ntext:\n- <w>"]), Random(0)
    n_resamples = [grammar.draw("text", {}, rng.random) for _ in range(4000)]
    # Word i of 4 has the chance ((i + 1) / 4) ** (1 / 1.6) - (i / 4) ** (1 / 1.6).
    counts = [n_resamples.count(word) / 4000 for word in "abcd"]
    assert counts == pytest.approx([0.420, 0.228, 0.187, 0.165], abs=0.03)


def test_an_action_changes_the_state():
    grammar = Grammar(["text:\n- <@note>{x}"], {"note": lambda state, _: state.update(x="seen")})
    assert grammar.draw("text", {}, Random(0).random) == "seen"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("text:\n- [a", "do not match"),
        ("text:\n- a]", "do not match"),
        ("text:\n- a|b", "do not match"),
        ("text:\n- <absent>", "no rule 'absent'"),
        ("text:\n- a {b", "not a template"),
        ("a = b\na = c", "a is defined twice"),
    ],
)
def test_what_is_wrong_with_a_grammar_is_said(source: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        Grammar([source])
