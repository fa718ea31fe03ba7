"""Short displays of values: a few lines at a prompt, a small table in a notebook.

Needs neither torch nor other packages of wirework, so that any class can use it for its `repr`.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from wirework.errors import printable, quoted

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LONGEST = 160
"""Maximum characters of a value in a table."""
_LINES = 4
"""Maximum lines of the `repr` of a report, without the keys."""


def short(value: object) -> str:
    """Return a value for a table: floats to four digits, texts unchanged, others cut."""
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


def absent(key: str | None = None) -> Any:
    """Return a dataclass field of a `Report` that `to_dict` omits if it is None.

    Args:
        key: its name in JSON; None for the name of the field.
    """
    return field(default=None, metadata={"absent": True, "key": key})


class _ReadAsDict(Mapping[str, Any]):
    """Deprecated read-only access by key, `report["held_out"]["circuit"]`.

    The next release removes it: use the fields, or `to_dict()`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the values for access by key."""
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())


@dataclass(frozen=True, repr=False)
class Report(_ReadAsDict):
    """Base of reports and of their entries: typed fields, JSON, a short text for a prompt.

    A report is a `@dataclass(frozen=True, repr=False)` that derives from this class. Its fields are
    numbers, texts, other reports and dataclasses, and lists, tuples and mappings of these. A field
    made by `absent` has no entry in JSON where it is None; any other None is written as null.

    Example:
        >>> @dataclass(frozen=True, repr=False)
        ... class Losses(Report):
        ...     circuit: float
        ...     calibrated: float | None = absent()
        >>> Losses(0.25)
        Losses(circuit 0.25,
               keys: circuit)
        >>> Losses(0.25).to_dict()
        {'circuit': 0.25}
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, as nested new dicts and lists."""
        return _entries(self)

    def summary(self) -> dict[str, Any]:
        """Return the main numbers by name: by default all that are not nested."""
        nested = (dict, list, tuple)
        return {name: v for name, v in self.to_dict().items() if not isinstance(v, nested)}

    def __repr__(self) -> str:
        return _shown(type(self).__name__, self.summary(), self)

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self.summary())


@dataclass(frozen=True, repr=False)
class NotMeasured(Report):
    """Stands for an entry of a report that cannot be computed."""

    reason: str
    """Why it cannot be computed, and what is missing."""


def _entries(record: "DataclassInstance") -> dict[str, Any]:
    """Return the fields of a dataclass by their names in JSON, without omitted ones."""
    values = ((one.metadata, one.name, getattr(record, one.name)) for one in fields(record))
    return {
        about.get("key") or name: _plain(value)
        for about, name, value in values
        if not (value is None and about.get("absent"))
    }


def _plain(value: Any) -> Any:
    """Return a value as dicts, lists, tuples, numbers and texts."""
    if isinstance(value, Report):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return _entries(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return tuple(_plain(part) for part in value) if isinstance(value, tuple) else value


def _shown(kind: str, summary: Mapping[str, object], keys: Iterable[str]) -> str:
    numbers = [f"{name} {short(value)}" for name, value in summary.items()]
    parts = (", ".join(part) for part in _in_lines(numbers, _LINES))
    return shown_as(kind, *parts, f"keys: {', '.join(keys)}"[:_LONGEST])


def _in_lines(parts: list[str], count: int) -> list[list[str]]:
    """Distribute parts over at most `count` lines, in order."""
    size = -(-len(parts) // count) or 1
    return [parts[first : first + size] for first in range(0, len(parts), size)]
