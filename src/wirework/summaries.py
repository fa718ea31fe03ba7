"""How a value shows itself: in a few lines at a prompt, as a small table in a notebook.

No torch, no other package of ours above this one: whatever has a `repr` may use it.
"""

import copy
import html
from collections.abc import Mapping
from typing import Any, ClassVar

from wirework.errors import printable, quoted

_LONGEST = 160
"""Characters of a value in a table."""
_LINES = 4
"""Of the `repr` of a report, without that of its keys."""


def short(value: object) -> str:
    """Return a value for a table: floats to four digits, texts as they are, the rest cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        text = printable(value)
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return quoted(value)


def shown_as(kind: str, first: str, *more: str) -> str:
    """Return a `repr`: `Kind(first)`, further lines below, indented to its first character."""
    between = ",\n" + " " * (len(kind) + 1)
    return f"{kind}({between.join((first, *more))})"


def html_table(title: str, values: Mapping[str, object]) -> str:
    """Return a two-column table as HTML; every text in it is escaped."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(short(name.replace("_", " ")))}</th>'
        f'<td style="text-align:left">{html.escape(short(value))}</td></tr>'
        for name, value in values.items()
    )
    return f"<table><caption>{html.escape(short(title))}</caption>{rows}</table>"


class Report(dict[str, Any]):
    """A report: a dict as JSON takes it, shown by its summary."""

    kind: ClassVar[str] = "Report"

    def summary(self) -> dict[str, Any]:
        """Return the numbers to look at first, by name."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the report, down to its leaves, as plain dicts and lists."""
        return copy.deepcopy(dict(self))

    def __repr__(self) -> str:
        summary = [f"{name} {short(value)}" for name, value in self.summary().items()]
        parts = (", ".join(part) for part in _in_lines(summary, _LINES))
        return shown_as(self.kind, *parts, f"keys: {', '.join(self)}"[:_LONGEST])

    def _repr_html_(self) -> str:
        return html_table(self.kind, self.summary())


def _in_lines(parts: list[str], count: int) -> list[list[str]]:
    """Deal parts out to at most so many lines, in order."""
    size = -(-len(parts) // count) or 1
    return [parts[first : first + size] for first in range(0, len(parts), size)]
