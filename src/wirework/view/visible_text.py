"""Text with every character visible: white space as marks, unprintable characters as escapes.

Two different texts never look the same. Pages, pictures, explanations and commands all use this
module, so that a token looks the same everywhere.
"""

import re
import unicodedata

_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "\\r", "\\": "\\\\"}
_NOTHING = "∅"
_TIMES = "\u00d7"
_TAKEN = {*_MARKS.values(), _NOTHING}
_BLANK = {*"\u115f\u1160\u2800\u3164\uffa0"}
"""Characters that Python calls printable but that draw nothing."""

_COUNTED = re.compile(r"(([·⏎⇥])\2{3,})(\d)?")
"""Four or more of one white-space mark, and the digit after them if there is one."""


def shown(text: str) -> str:
    """Return a text with every character visible, for running text.

    Space, newline and tab become · ⏎ ⇥, one mark each; carriage return and backslash become \\r
    and \\\\. Escapes (\\x, \\u or \\U) replace all other unprintable characters, characters that
    change the direction of text, a combining character at the beginning, and · ⏎ ⇥ ∅ themselves.
    The empty text is ∅.
    """
    return "".join(_visible(c, first=not i) for i, c in enumerate(text)) or _NOTHING


def shown_lines(text: str) -> str:
    """Return a text as `shown`, with a line break after each ⏎."""
    return shown(text).replace("⏎", "⏎\n")


def label(text: str) -> str:
    """Return a token for a box or a list: as `shown`, with long white space counted.

    Four or more of one kind of white space become one mark and their number: ·×15. A × after white
    space and a digit after such a number become escapes, so that the count is not misread.
    """
    marked = re.sub(f"(?<=[·⏎⇥]){_TIMES}", _escape(_TIMES).replace("\\", r"\\"), shown(text))
    return _COUNTED.sub(_count, marked)


def _count(run: re.Match[str]) -> str:
    _, mark, digit = run.groups()
    return f"{mark}{_TIMES}{len(run[1])}{_escape(digit) if digit else ''}"


def quoted_label(text: str) -> str:
    r"""Return a label in double quotes, with double quotes in the text as \"."""
    return '"' + label(text).replace('"', '\\"') + '"'


def plain(text: str) -> str:
    """Return text unchanged except for characters that print nothing or reverse direction."""
    return "".join(c if _prints(c) else _escape(c) for c in text)


def plain_lines(text: str) -> str:
    """Return text as `plain`, with line breaks and tabs kept."""
    return "".join(c if c in "\n\t" else plain(c) for c in text)


def number(value: float | None) -> str:
    """Return a number with four significant digits, or n/a for None."""

    return "n/a" if value is None else f"{value:.4g}"


def _visible(character: str, first: bool) -> str:
    if character in _MARKS:
        return _MARKS[character]
    joins = first and unicodedata.category(character).startswith("M")
    if character in _TAKEN or joins or not _prints(character):
        return _escape(character)
    return character


def _prints(character: str) -> bool:
    return character.isprintable() and character not in _BLANK


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
