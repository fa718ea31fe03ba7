"""Results on standard output: tables for people, one JSON object with `--json`."""

import json
import sys
from typing import Any


def show(title: str, values: dict[str, Any], as_json: bool) -> None:
    """Print a result on standard output: a two-column table, or one line of JSON."""
    if as_json:
        print(json.dumps(values, allow_nan=False))
    else:
        print_table(title, ["", ""], [[name, cell(value)] for name, value in values.items()])


def show_rows(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows of equal columns on standard output: a table, or one line of JSON."""
    if as_json:
        print(json.dumps({title: rows}, allow_nan=False))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_table(title, columns, [[cell(row.get(c)) for c in columns] for row in rows])


def show_all(title: str, values: dict[str, Any], as_json: bool, **tables: str) -> None:
    """Print a result on standard output: some of its values as tables, or one line of JSON.

    Args:
        title: of the rest.
        values: the result.
        as_json: print it as it is.
        tables: titles of the values that are rows.
    """
    if not as_json:
        for name, heading in tables.items():
            show_rows(heading, values[name], as_json=False)
        values = {name: value for name, value in values.items() if name not in tables}
    show(title, values, as_json)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print cells on standard output, under a title."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text) for text in row))  # Text: a token may look like markup
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def cell(value: Any) -> str:
    """Return what a table shows of a value: numbers to four digits, what is nested on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "  ".join(cell(inner) for inner in value)
    return str(value)
