import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirework.view.visible_text import label, number, quoted_label, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" x", "·x"),
        ("\n    ", "⏎····"),
        ("\t", "⇥"),
        ("\\n", "\\\\n"),
        ("a·⏎⇥∅", "a\\xb7\\u23ce\\u21e5\\u2205"),
        ("\u0301e\u0301", "\\u0301e\u0301"),  # an accent without a letter
        ("\u3164", "\\u3164"),  # a filler, drawn as nothing
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("\r", "\\r"),
        ("", "∅"),
        ("</script>", "</script>"),
        ("\u202e", "\\u202e"),  # right-to-left override
        ("\u200b\u00a0", "\\u200b\\xa0"),
        ("\x00", "\\x00"),
        ("é中", "é中"),
    ],
)
def test_shown_makes_every_character_visible(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text())
def test_shown_is_always_printable(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" " * 3, "···"),
        (" " * 11, "·×11"),
        (" " * 15, "·×15"),
        ("\n" + " " * 8 + "return", "⏎·×8return"),
        ("\t" * 5 + "\n" * 4, "⇥×5⏎×4"),
        (" ×4", "·\\xd74"),
        ("2×4", "2×4"),
        (" " * 15 + "3", "·×15\\x33"),
    ],
)
def test_label_counts_long_white_space(text: str, expected: str) -> None:
    assert label(text) == expected


_AWKWARD = st.text(st.sampled_from([*" \n\t\r\\·⏎⇥∅×0123xud", "\x00", "\u202e", "\ud800"]))


@given(_AWKWARD, _AWKWARD)
def test_texts_that_differ_never_look_the_same(one: str, other: str) -> None:
    for display in (shown, label, quoted_label):
        assert (display(one) == display(other)) == (one == other)


@given(st.lists(_AWKWARD, max_size=3), st.lists(_AWKWARD, max_size=3))
def test_quoted_texts_show_where_each_ends(one: list[str], other: list[str]) -> None:
    assert ("".join(map(quoted_label, one)) == "".join(map(quoted_label, other))) == (one == other)


def test_quotes_of_the_text_are_escaped() -> None:
    assert quoted_label('"') == '"\\""'
    assert quoted_label('\\"') == '"\\\\\\""'
    assert quoted_label("'<&") == '"\'<&"'


def test_number() -> None:
    assert number(0.6931471) == "0.6931"
    assert number(None) == "n/a"
