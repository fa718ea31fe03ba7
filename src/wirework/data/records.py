"""Corpora of records with a named text field: JSONL, Parquet, Hugging Face datasets."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from wirework.errors import InputError, nearest
from wirework.foreign import no_prompts
from wirework.redaction import redact

PARQUET_ROWS = 256
"""Rows decoded at a time."""


def jsonl(path: Path, field: str) -> Iterator[str]:
    """Yield `field` of each line of a JSONL file; blank lines are passed over.

    Raises:
        InputError: the file is unreadable, or a line is no JSON object with text in that field;
            the message names the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _text(_parse(line, f"{path} line {number}"), field, path, number)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def parquet(path: Path, field: str) -> Iterator[str]:
    """Yield a column of a Parquet file (extra `parquet`).

    Raises:
        InputError: pyarrow is not installed, the file is no Parquet, or a row has no text in that
            column.
    """
    _extra("pyarrow", "parquet", "Parquet")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if field not in names:
                raise InputError(f"{path} has no column {field!r}{_hint(field, names)}")
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[field]):
                for record in batch.to_pylist():
                    number += 1
                    yield _text(record, field, path, number, "row")
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path} as Parquet: {_one_line(error)}") from error


def hub(name: str, field: str) -> Iterator[str]:
    """Yield `field` of the train split of a Hugging Face dataset, streamed (extra `hub`).

    Raises:
        InputError: datasets is not installed, the dataset cannot be had, or it has no such field.
    """
    datasets = _extra("datasets", "hub", "hub:NAME")
    try:
        with no_prompts():
            rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(
                name, split="train", streaming=True, trust_remote_code=False
            )
        for number, record in enumerate(rows, 1):
            yield _text(record, field, f"hub:{name}", number, "row")
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read hub:{name}: {_one_line(error)}") from error


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # numbers too long, brackets too deep
        raise InputError(f"{where} is not JSON: {error}") from None


def _text(record: Any, field: str, source: Path | str, number: int, unit: str = "line") -> str:
    """Return the text of one record, or say which record has none."""
    where = f"{source} {unit} {number}"
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: expected an object with field {field!r}")
    if field not in record:
        raise InputError(f"{where} has no field {field!r}{_hint(field, list(record))}")
    text = record[field]
    if not isinstance(text, str):
        raise InputError(f"{where}: field {field!r} should be text, got {type(text).__name__}")
    # JSON can spell halves of characters (\ud800), which no tokeniser takes.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: field {field!r} holds half a character (a lone surrogate)"
        ) from None
    return text


def _hint(field: str, names: list[str]) -> str:
    return nearest(field, names) or f"; it has {', '.join(map(repr, names[:8]))}"


def _extra(module: str, extra: str, what: str) -> ModuleType:
    """Import an optional package, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise InputError(
            f"{what} needs the package {module}: pip install 'wirework[{extra}]'"
        ) from None


def _one_line(error: Exception) -> str:
    return redact(" ".join(str(error).split()))[:300]
