"""How text is shown: white space visible, nothing that could reorder or hide other text."""

_MARKS = {" ": "·", "\n": "⏎", "\t": "→", "\r": "\\r"}


def shown(text: str) -> str:
    """Return a token's text with every character visible.

    Space, newline, tab and carriage return become · ⏎ → \\r; other characters that print nothing or
    change the direction of what stands beside them become their \\u escapes; no text at all is ∅.
    """
    return "".join(_MARKS.get(c) or (c if c.isprintable() else _escape(c)) for c in text) or "∅"


def plain(text: str) -> str:
    """Return text for reading: as it is, but for characters that print nothing or turn others."""
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def number(value: float | None) -> str:
    """Return a number for people: four significant digits, n/a where there is none."""
    return "n/a" if value is None else f"{value:.4g}"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
