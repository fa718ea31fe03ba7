"""Corpora of records with a named text field: JSONL, Parquet, Hugging Face datasets."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from wirework.data.text_files import reading
from wirework.errors import InputError, nearest, reason, translated_errors
from wirework.file_system import open_ordinary
from wirework.foreign import no_prompts

PARQUET_ROWS = 256
"""Rows decoded at a time."""
MAX_LINE_BYTES = 1 << 28
"""Maximum length of a line of JSONL: a longer one may not fit in memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def jsonl(path: Path, field: str) -> Iterator[str]:
    """Yield `field` of each line of a JSONL file; blank lines are skipped.

    Raises:
        InputError: the file is unreadable, or a line is too long or not a JSON object with text in
            that field; the message names the line.
    """
    number = 0
    with reading(path), open_ordinary(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(
                    f"{path} line {number} is longer than {MAX_LINE_BYTES >> 20} MiB: "
                    "JSONL has one record a line"
                )
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield _text(_parse(line, f"{path} line {number}"), field, path, number)


def parquet(path: Path, field: str) -> Iterator[str]:
    """Yield a column of a Parquet file (extra `parquet`).

    Raises:
        InputError: pyarrow is not installed, the file is not Parquet, or a row has no text in that
            column.
    """
    for number, record in enumerate(_parquet_rows(path, field), 1):
        yield _text(record, field, path, number, "row")


def hub(
    name: str, field: str, revision: str | None = None, subset: str | None = None
) -> Iterator[str]:
    """Yield `field` of the train split of a Hugging Face dataset, streamed (extra `hub`).

    Args:
        name: name of the dataset, `OWNER/NAME`.
        field: the column that holds the text.
        revision: a branch, tag or commit; None: the newest.
        subset: the dataset's configuration, if it has several.

    Raises:
        InputError: `datasets` is not installed, the dataset cannot be loaded, or it has no such
            field.
    """
    source = f"hub:{name}" if revision is None else f"hub:{name}@{revision}"
    for number, record in enumerate(_hub_rows(name, revision, subset, source), 1):
        yield _text(record, field, source, number, "row")


# The two libraries raise many classes of errors, also in the middle of a stream. These generators
# contain only the calls of the library, so that no error of our own code is translated.


def _parquet_rows(path: Path, field: str) -> Iterator[Any]:
    _extra("pyarrow", "parquet", "Parquet")
    parquet = _extra("pyarrow.parquet", "parquet", "Parquet")
    with (
        translated_errors(f"cannot read {path} as Parquet"),
        parquet.ParquetFile(path) as file,
    ):
        names = file.schema_arrow.names
        if field not in names:
            raise InputError(f"{path} has no column {field!r}{_hint(field, names)}")
        for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[field]):
            yield from batch.to_pylist()


def _hub_rows(name: str, revision: str | None, subset: str | None, source: str) -> Iterator[Any]:
    datasets = _extra("datasets", "hub", "hub:NAME")
    with translated_errors(f"cannot read {source}"):
        with no_prompts():
            rows = datasets.load_dataset(
                name,
                subset,
                split="train",
                streaming=True,
                revision=revision,
                trust_remote_code=False,
            )
        yield from rows


def _parse(line: bytes, where: str) -> Any:
    """Parse one line of JSONL; the error says where it is."""
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # numbers too long, brackets too deep
        raise InputError(f"{where} is not JSON: {error}") from None


def _text(record: Any, field: str, source: Path | str, number: int, unit: str = "line") -> str:
    """Return the text of one record; the error names the record that has none."""
    where = f"{source} {unit} {number}"
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: expected an object with field {field!r}")
    if field not in record:
        raise InputError(f"{where} has no field {field!r}{_hint(field, list(record))}")
    text = record[field]
    if not isinstance(text, str):
        raise InputError(f"{where}: field {field!r} should be text, got {type(text).__name__}")
    # JSON can contain lone surrogates (\ud800), which no tokeniser accepts.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: field {field!r} holds half a character (a lone surrogate)"
        ) from None
    return text


def _hint(field: str, names: list[str]) -> str:
    """Return the end of a message about a missing field: the nearest name, or what there is."""
    return nearest(field, names) or f"; it has {', '.join(map(repr, names[:8]))}"


def _extra(module: str, extra: str, feature: str) -> ModuleType:
    """Import an optional package; the error says how to install it."""
    import importlib

    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:  # installed, but one of its own imports is missing
            raise InputError(f"{feature}: cannot load {package}: {reason(error)}") from error
        raise InputError(
            f"{feature} needs the package {package}: pip install '.[{extra}]'"
        ) from None
    except Exception as error:  # a broken installation may raise any class
        raise InputError(f"{feature}: cannot load {package}: {reason(error)}") from error
