"""Results on standard output: tables for people, one JSON object with `--json`."""

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wirework.commands.meanings import meaning
from wirework.view.visible_text import plain

_WIDTH = 120
"""Width of tables in a file or a pipe."""
_PROSE = 100
"""Maximum length of a line of prose."""


def show(title: str, values: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on standard output: a table of names, values and what is good, or JSON."""
    if as_json:
        print(json.dumps(dict(values), allow_nan=False))
    else:
        print_values(title, flat(values))


def print_values(title: str, values: Iterable[tuple[str, Any]]) -> None:
    """Print a line for each value: its name, the value and its meaning, if there is one.

    Args:
        title: title of the table.
        values: name and value; the last word of the name decides the meaning.
    """
    rows = [
        # A path may have the name of a number, such as `circuit`: it has no good values.
        [name, cell(value), "" if isinstance(value, str) else meaning(name)]
        for name, value in values
    ]
    width = 3 if any(row[2] for row in rows) else 2
    print_table(title, [""] * width, [row[:width] for row in rows])


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted names; lists of a result are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        elif not isinstance(value, list | tuple):
            yield f"{before}{name}", value


def without_pooled_kurtosis(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's numbers for a table, which has one kurtosis: that of the channels' mean."""
    return {name: value for name, value in values.items() if name != "kurtosis"}


def print_verdict(words: str) -> None:
    """Print the main result in one or two sentences, before the numbers behind it."""
    print_paragraph(f"verdict: {words}")


def print_paragraph(text: str, indent: str = "") -> None:
    """Print prose, wrapped at the width of a line."""
    width = min(_width(), _PROSE)
    print(textwrap.fill(plain(text), width, initial_indent=indent, subsequent_indent=indent))


def print_next(*words: str | Path) -> None:
    """Print the command to run next, as the last line of a command."""
    print(f"next: wirework {plain(shlex.join(map(str, words)))}")


def changed_flags(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the flags that repeat settings on a next command: those that are not the default.

    Args:
        values: dotted name to value: a switch, None, a list or one value.
        defaults: dotted name to default; more names than in `values` do no harm.
    """
    flags: list[str] = []
    for name, value in values.items():
        if value != defaults[name]:
            flags += _flag(name.replace("_", "-"), value)
    return flags


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(str, value)] if value else [f"--empty-{name}"]
    return [f"--{name}", "none" if value is None else str(value)]


def print_wrote(*paths: str | Path) -> None:
    """Print which files or folders a command wrote."""
    print(f"wrote: {', '.join(plain(str(path)) for path in paths)}")


def print_paths(*paths: Path, then: Sequence[str | Path]) -> None:
    """Print the paths that a command wrote, one per line; on a terminal also the next command.

    Other programs read these paths, so nothing else is printed for them.

    Args:
        paths: files or folders that were written.
        then: words of the command to run next.
    """
    for path in paths:
        print(path)
    if sys.stdout.isatty():
        print_next(*then)


def show_rows(title: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows of equal columns on standard output: a table, or one line of JSON."""
    if as_json:
        print(json.dumps({title: [*rows]}, allow_nan=False))
    else:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        print_table(title, columns, [[cell(row.get(c)) for c in columns] for row in rows])


def show_all(title: str, values: dict[str, Any], as_json: bool, **tables: str) -> None:
    """Print a result on standard output: some of its values as tables, or one line of JSON.

    Args:
        title: title of the table of all other values.
        values: the result.
        as_json: print the result as JSON.
        tables: titles of the values that are rows.
    """
    if not as_json:
        for name, heading in tables.items():
            show_rows(heading, values[name], as_json=False)
        values = {name: value for name, value in values.items() if name not in tables}
    show(title, values, as_json)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print cells on standard output, under a title.

    If the columns do not fit a line without breaking words, they are printed as several tables,
    each with the first column.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # All text goes to rich as `Text`, so that none of it is markup. rich draws and `print` writes,
    # since rich ends the process itself if the output pipe is closed.
    console = Console(width=_width())
    if not columns:
        print(title)
        return
    shown = [[column.replace("_", " ") for column in columns], *rows]
    every = [*zip(*shown, strict=True)]
    whole = [max(map(cell_len, column)) for column in every]
    words = [
        max((cell_len(word) for text in column for word in text.split()), default=1)
        for column in every
    ]
    for number, part in enumerate(_parts(words, console.width)):
        table = Table(
            title=None if number else Text(title, "table.title"),
            title_justify="left",
            show_header=any(columns),
        )
        room = _widths([whole[i] for i in part], [words[i] for i in part], console.width)
        for i, width in zip(part, room, strict=True):
            table.add_column(Text(shown[0][i]), overflow="fold", width=width)
        for row in rows:
            table.add_row(*(Text(row[i]) for i in part))
        with console.capture() as drawn:
            console.print(table)
        print(drawn.get(), end="")


def _width() -> int:
    """Return the width of a line on standard output."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH


def _parts(words: list[int], room: int) -> list[list[int]]:
    """Return groups of columns to show side by side, given their minimum widths."""
    parts = [[0]]
    for i in range(1, len(words)):
        if len(parts[-1]) > 1 and _lined([words[j] for j in (*parts[-1], i)]) > room:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _lined(widths: list[int]) -> int:
    """Return the width of columns with lines and spaces between them."""
    return sum(widths) + 3 * len(widths) + 1


def _widths(whole: list[int], words: list[int], room: int) -> list[int]:
    """Return widths of columns that fit a line.

    rich does not consider words: with minimum widths it cuts the table off at the end of the line.

    Args:
        whole: widths at which no text is broken; the widest columns shrink first.
        words: widths at which no word is broken; columns become narrower only if necessary.
        room: width of a line.
    """
    widths = list(whole)
    for least in (words, [1] * len(words)):
        while _lined(widths) > room:
            wide = [i for i, width in enumerate(widths) if width > least[i]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def cell(value: Any) -> str:
    """Return the text of a table cell: numbers to four digits, nested values on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "  ".join(cell(inner) for inner in value)
    return plain(str(value))
