"""How text is shown: white space visible, nothing that could reorder or hide other text.

Two texts that differ never look the same. Imported by whatever shows tokens to people, so that they
read alike on the pages, in the pictures and in explanations.
"""

import re
import unicodedata

_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "\\r", "\\": "\\\\"}
_NOTHING = "∅"
_TIMES = "\u00d7"
_TAKEN = {*_MARKS.values(), _NOTHING}
_BLANK = {*"\u115f\u1160\u2800\u3164\uffa0"}
"""Characters that Python calls printable and that draw nothing."""

_COUNTED = re.compile(r"(([·⏎⇥])\2{3,})(\d)?")
"""A run of white space that is too long to be counted by eye, and a digit behind it."""


def shown(text: str) -> str:
    """Return a text with every character visible, for running text.

    Space, newline and tab become · ⏎ ⇥, one mark each, carriage return and backslash \\r and \\\\.
    Other characters that print nothing, join the character before them at the beginning, or change
    the direction of what stands beside them become their \\x, \\u or \\U escapes, and so do · ⏎ ⇥ ∅
    themselves. No text at all is ∅.
    """
    return "".join(_visible(c, first=not i) for i, c in enumerate(text)) or _NOTHING


def shown_lines(text: str) -> str:
    """Return a text as `shown`, with a line end behind each ⏎."""
    return shown(text).replace("⏎", "⏎\n")


def label(text: str) -> str:
    """Return a token for a place of its own, such as a box or a list: as `shown`, but counted.

    Four or more of one kind of white space become one mark and their number: ·×15. What would be
    read as a part of that (× behind white space, a digit behind a number) becomes its escape.
    """
    marked = re.sub(f"(?<=[·⏎⇥]){_TIMES}", _escape(_TIMES).replace("\\", r"\\"), shown(text))
    return _COUNTED.sub(_count, marked)


def _count(run: re.Match[str]) -> str:
    _, mark, digit = run.groups()
    return f"{mark}{_TIMES}{len(run[1])}{_escape(digit) if digit else ''}"


def quoted(text: str) -> str:
    r"""Return a label in double quotes, those of the text itself as \"."""
    return '"' + label(text).replace('"', '\\"') + '"'


def plain(text: str) -> str:
    """Return text for reading: as it is, but for characters that print nothing or turn others."""
    return "".join(c if _prints(c) else _escape(c) for c in text)


def plain_lines(text: str) -> str:
    """Return text of several lines for reading: as `plain`, but for line ends and tabs."""
    return "".join(c if c in "\n\t" else plain(c) for c in text)


def number(value: float | None) -> str:
    """Return a number for people: four significant digits, n/a where there is none."""
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
