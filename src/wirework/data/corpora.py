"""Corpora: from the name of a corpus to a stream of documents, in bounded memory.

One function, `documents`, whatever the corpus is; the kinds are `python` (`python_source.py`), a
text file, a folder, JSONL, Parquet and `hub:NAME` (`records.py`). The order of documents is the
same every time; where a corpus is many files it is scattered by the hash of their names, so that
any beginning of it is a fair sample.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from wirework.config import DataConfig
from wirework.data import python_source, records
from wirework.data.text_files import read_text, text_pieces
from wirework.errors import InputError

PYTHON = "python"
HUB = "hub:"
JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"
FOLDER_PIECE_BYTES = 1 << 20
"""A file of a folder is one document up to this size, in bytes; a larger one is cut."""


def documents(config: DataConfig) -> Iterator[str]:
    """Yield the documents of a corpus in a fixed order, none of them empty.

    Args:
        config: `corpus`, `field`, `max_bytes` and `min_quotes` say what is read. The document that
            passes `max_bytes` (UTF-8) is cut there, and is the last.

    Raises:
        InputError: the corpus is missing, empty, binary or undecodable, or a package that reads it
            is not installed.
    """
    left = config.max_bytes
    found = False
    for text in _read(config):
        size = len(text.encode())
        if left is not None and size >= left:
            text = text.encode()[:left].decode(errors="ignore")  # may end inside a character
        if text:
            found = True
            yield text
        if left is not None:
            left -= size
            if left <= 0:
                break
    if not found:
        raise InputError(f"corpus {config.corpus} is empty: it holds no text")


def corpus_files(corpus: str) -> list[Path] | None:
    """Return the files that a local corpus is read from, sorted by path; None for `hub:` ones.

    Raises:
        InputError: there is nothing at that path, or a folder has no files.
    """
    if corpus.startswith(HUB):
        return None
    if corpus == PYTHON:
        return sorted(path for path, _ in python_source.source_files())
    path = Path(corpus)
    if path.is_dir():
        return _folder_files(path)
    if not path.exists():
        raise InputError(
            f"corpus {corpus} does not exist: give `python`, a file, a folder or `hub:NAME`"
        )
    return [path]


def _read(config: DataConfig) -> Iterator[str]:
    corpus = config.corpus
    if corpus.startswith(HUB):
        return records.hub(corpus.removeprefix(HUB), config.field)
    if corpus == PYTHON:
        return python_source.documents(config.min_quotes)
    path = Path(corpus)
    if path.is_dir():
        return _folder(path, config.field)
    corpus_files(corpus)
    return _records(path, config.field) or _lone_file(path)


def _records(path: Path, field: str) -> Iterator[str] | None:
    """Return the records of a JSONL or Parquet file; None: it is another kind of file."""
    if path.suffix in JSONL_SUFFIXES:
        return records.jsonl(path, field)
    return records.parquet(path, field) if path.suffix == PARQUET_SUFFIX else None


def _lone_file(path: Path) -> Iterator[str]:
    """Yield a text file in pieces that end at line ends, each a document.

    One document would have to fit in memory, and could not be split into train and val.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return text_pieces(path, min(max(size // 64, 1 << 10), 1 << 16))


def _folder(folder: Path, field: str) -> Iterator[str]:
    """Yield the text of every file below a folder; binary and undecodable files are left out."""
    skipped = 0
    for path in sorted(_folder_files(folder), key=lambda path: _scatter(path, folder)):
        kept = _records(path, field)
        if kept is None:
            kept = read_text(path, FOLDER_PIECE_BYTES)
        if kept is None:
            skipped += 1
            continue
        yield from kept
    if skipped:
        from rich.console import Console

        Console(stderr=True).print(f"{folder}: {skipped} files left out, not UTF-8 text")


def _folder_files(folder: Path) -> list[Path]:
    """Return all files below a folder whose path has no hidden part, sorted."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / name for name in names if not name.startswith(".")]
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise InputError(f"corpus {folder} is empty: the folder has no files")
    return files


def _scatter(path: Path, folder: Path) -> bytes:
    return hashlib.sha256(str(path.relative_to(folder)).encode(errors="surrogateescape")).digest()
