"""Read a task from a user's JSONL file, one pair per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wirework.circuit_format import MOST_PAIRS
from wirework.errors import InputError, number_of, quoted, reason, translated_errors
from wirework.file_system import open_ordinary
from wirework.tasks.task import Pair, Task

_LINE_BYTES = 1 << 24
"""Longest line: room for the longest pair with every character escaped."""
_MAX_LINES = 10 * MOST_PAIRS
_MARK = b"\xef\xbb\xbf"
"""Byte order mark that some editors write before UTF-8 text."""


def read_pairs(path: Path, n: int | None) -> Task:
    """Return the task of a file, or of its first `n` pairs; the lines after these are not read.

    Raises:
        InputError: an unreadable file, a line that is not a pair or duplicates another one, fewer
            pairs than `n`, or more than the maximum of a task.
    """
    max_pairs = MOST_PAIRS if n is None else min(n, MOST_PAIRS)
    pairs_by_content: dict[frozenset[tuple[str, str]], tuple[int, Pair]] = {}
    for number, line in _lines(path):
        if len(pairs_by_content) == max_pairs:
            if n is None:
                raise InputError(f"task {path} has more than {max_pairs:,} pairs: give fewer")
            break
        pair = _parse(line, f"{path}, line {number}")
        first, _ = pairs_by_content.setdefault(pair.content, (number, pair))
        if first != number:  # a duplicate could both train a circuit and be held out
            raise InputError(f"{path}, line {number}: the same pair as in line {first}")
    pairs = [pair for _, pair in pairs_by_content.values()]
    if not pairs:
        raise InputError(f"task {path} has no pairs")
    if n is not None and len(pairs) < n:
        raise InputError(f"task {path} has {number_of(len(pairs), 'pair')}, {n} were asked for")
    return Task(path.stem, tuple(pairs), path=str(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers from 1.

    Raises:
        InputError: it is no ordinary file (a folder, a pipe, a device), is not UTF-8 text, or has
            too many lines or one that is too long.
    """
    with translated_errors(f"cannot read task {path}"):
        file = open_ordinary(path)
    with file:
        offset = 0
        for number in range(1, _MAX_LINES + 2):
            with translated_errors(f"cannot read task {path}"):
                content = file.readline(_LINE_BYTES + 1)
            if not content:
                return
            if number > _MAX_LINES or len(content) > _LINE_BYTES:
                raise InputError(f"{path}, line {number}: too long for a file of pairs")
            text = content.removeprefix(_MARK) if number == 1 else content
            if text.strip():
                yield number, _decoded(text, path, offset + len(content) - len(text))
            offset += len(content)


def _decoded(content: bytes, path: Path, offset: int) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"task {path} is not UTF-8 text: byte {offset + error.start}") from None


def _parse(line: str, where: str) -> Pair:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {reason(error)}") from None
    if not isinstance(value, dict) or sorted({*value} - {"template"}) != ["answers", "prompts"]:
        keys = quoted(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise InputError(
            f"{where}: a pair has the keys 'prompts', 'answers' and perhaps 'template', got {keys}"
        )
    template = value.get("template")
    if template is not None and not isinstance(template, str):
        raise InputError(f"{where}: template must be a text, got {quoted(template)}")
    try:
        prompts, answers = _texts(value["prompts"], "prompts"), _texts(value["answers"], "answers")
        return Pair(prompts, answers, template)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _texts(value: Any, key: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(t, str) for t in value):
        raise InputError(f"{key} must be a list of two texts, got {quoted(value)}")
    return value[0], value[1]
