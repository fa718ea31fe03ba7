"""Corpora: from the name of a corpus to a stream of documents, in bounded memory.

`documents` reads every kind of corpus:

- `python` (python_source.py), and the generated `programs` (programs/) and `stories` (stories/);
- a text file, or a folder of files;
- records with a text field: JSONL, Parquet and `hub:NAME` (records.py);
- a user's function.

A second corpus may be mixed in. The order of documents is always the same. Files of a folder are
ordered by the hash of their names, so that the first documents are a fair sample of all.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from wirework.config import DataConfig
from wirework.config.data import HUB, hub_name
from wirework.console import say
from wirework.data import programs, python_source, records, stories
from wirework.data.text_files import (
    is_separated,
    read_text,
    reading,
    separated,
    stat_of,
    text_pieces,
)
from wirework.errors import InputError, number_of, quoted, reason
from wirework.files import exists
from wirework.user_code import function_files, guarded, is_function, load_function

PYTHON = "python"
JSONL_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIX = ".parquet"
FOLDER_PIECE_BYTES = 1 << 20
"""A file of a folder is one document up to this size, in bytes; a larger one is cut."""


class GeneratedCorpus(NamedTuple):
    """A corpus that a grammar writes, an endless stream for each seed."""

    bounded: Callable[[int, int], Iterator[str]]
    """Maps a seed and a number of bytes to documents of at least that size."""
    source_files: Callable[[], list[Path]]
    """Returns every file that the text depends on."""
    default_bytes: int
    """Size without `max_bytes`."""
    seed_setting: str
    """Name of the setting with its seed."""


GENERATED = {
    "programs": GeneratedCorpus(
        programs.bounded, programs.source_files, programs.DEFAULT_BYTES, "programs_seed"
    ),
    "stories": GeneratedCorpus(
        stories.bounded, stories.source_files, stories.DEFAULT_BYTES, "stories_seed"
    ),
}
"""The generated corpora by name."""


def documents(config: DataConfig) -> Iterator[str]:
    """Yield the documents of a corpus in a fixed order, none of them empty.

    Args:
        config: `corpus`, `field`, `max_bytes`, `min_quotes`, `mix` and `mix_share` are used. The
            document that exceeds `max_bytes` (UTF-8) is cut there and is the last one.

    Raises:
        InputError: the corpus is missing, empty, binary or undecodable, or a package that reads it
            is not installed.
    """
    bytes_left = config.max_bytes
    has_text = False
    for text in _mixed(config):
        size = len(text.encode())
        if bytes_left is not None and size >= bytes_left:
            text = text.encode()[:bytes_left].decode(errors="ignore")  # may end inside a character
        if text:
            has_text = True
            yield text
        if bytes_left is not None:
            bytes_left -= size
            if bytes_left <= 0:
                break
    if not has_text:
        raise InputError(f"corpus {config.corpus} is empty: it holds no text")


def corpus_files(corpus: str | Path) -> list[Path] | None:
    """Return the files that a corpus is read from, sorted by path.

        Args:
        corpus: name of the corpus.

    Returns:
        For a function its source files (`user_code.function_files`), for a generated corpus the
        files of its generator; None for `hub:NAME`.

    Raises:
        InputError: the path does not exist or is neither file nor folder, a folder is empty or
            cannot be read, or there is no such function.
    """
    corpus = str(corpus)
    with reading(f"corpus {quoted(corpus)}"):
        return _files(corpus)


def _files(corpus: str) -> list[Path] | None:
    """Return the files of a corpus; a system error is not translated."""
    if corpus.startswith(HUB):
        return None
    if is_function(corpus):
        return function_files(load_function(corpus, "corpus"))
    if corpus == PYTHON:
        return sorted(path for path, _ in python_source.candidate_files())
    if corpus in GENERATED:
        return GENERATED[corpus].source_files()
    path = Path(corpus)
    if is_prepared(path):
        raise InputError(
            f"corpus {corpus} is a prepared corpus, not text: name the text that it was made from"
        )
    if path.is_dir():
        return _folder_files(path)
    if not exists(path):
        raise InputError(
            f"corpus {corpus[:200]} does not exist: give `python`, `programs`, `stories`, a file, "
            "a folder, `hub:NAME` or `file.py:function`"
        )
    if not path.is_file():
        raise InputError(
            f"corpus {corpus} is a device or a pipe: give a file, which can be read several times"
        )
    return [path]


def is_prepared(folder: str | Path) -> bool:
    """Return whether a folder holds the tokens of a corpus, as `prepare` writes them."""
    names = ("tokenizer.json", "checksums.json", "train/index.json", "val/index.json")
    return all((Path(folder) / name).is_file() for name in names)


def is_marked(corpus: str) -> bool:
    """Return whether a corpus is one text file with separators between its documents."""
    path = Path(corpus)
    has_records = path.suffix in (*JSONL_SUFFIXES, PARQUET_SUFFIX)
    return path.is_file() and not has_records and is_separated(path)


def _mixed(config: DataConfig) -> Iterator[str]:
    """Yield the corpus; after each document, documents of the mix that bring it to its share."""
    if config.mix is None:
        yield from _read(config.corpus, config)
        return
    mix = _read(config.mix, config)
    mix_bytes_per_byte = config.mix_share / (1 - config.mix_share)
    missing_bytes = 0.0
    for text in _read(config.corpus, config):
        yield text
        missing_bytes += mix_bytes_per_byte * len(text.encode())
        while missing_bytes > 0 and (mixed_in := next(mix, None)) is not None:
            yield mixed_in
            missing_bytes -= len(mixed_in.encode())


def _read(corpus: str, config: DataConfig) -> Iterator[str]:
    """Yield the documents of one corpus, without the limits of the settings."""
    if corpus.startswith(HUB):
        name, revision = hub_name(corpus)
        subset = config.subset if corpus == config.corpus else None
        return records.hub(name, config.field, revision, subset)
    if corpus == PYTHON:
        return python_source.source_documents(config.min_quotes)
    if corpus in GENERATED:
        generated = GENERATED[corpus]
        seed = getattr(config, generated.seed_setting)
        return generated.bounded(seed, config.max_bytes or generated.default_bytes)
    with reading(f"corpus {quoted(corpus)}"):
        if is_function(corpus):
            return _from_function(corpus)
    files, path = corpus_files(corpus) or [], Path(corpus)
    if path.is_dir():
        return _folder(path, files, config.field)
    return _records(path, config.field) or _text_file(path)


def _from_function(name: str) -> Iterator[str]:
    """Yield the texts of a user's function, checked to be texts."""
    function = load_function(name, "corpus")
    texts = guarded(lambda: iter(function()), f"corpus {name}")
    while (text := guarded(lambda: next(texts, None), f"corpus {name}")) is not None:
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(f"corpus {name} must yield texts, got a value of type {kind}")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise InputError(f"corpus {name} yields half a character (a lone surrogate)")
        yield text


def _records(path: Path, field: str) -> Iterator[str] | None:
    """Return the records of a JSONL or Parquet file; None for another kind of file."""
    if path.suffix in JSONL_SUFFIXES:
        return records.jsonl(path, field)
    return records.parquet(path, field) if path.suffix == PARQUET_SUFFIX else None


def _text_file(path: Path) -> Iterator[str]:
    """Yield the documents of a text file: the texts between separators, or pieces of whole lines.

    As a single document the file would have to fit in memory and could not be split.
    """
    if is_separated(path):
        return separated(path)
    return text_pieces(path, min(max(stat_of(path).st_size // 64, 1 << 10), 1 << 16))


def _folder(folder: Path, files: list[Path], field: str) -> Iterator[str]:
    """Yield the text of every file below a folder; files that are not UTF-8 are left out."""
    skipped = 0
    for path in sorted(files, key=lambda path: _scatter(path, folder)):
        texts = _records(path, field)
        if texts is None:
            texts = read_text(path, FOLDER_PIECE_BYTES)
        if texts is None:
            skipped += 1
            continue
        yield from texts
    if skipped:
        say(f"{folder}: {number_of(skipped, 'file')} left out, not UTF-8 text")


def _folder_files(folder: Path) -> list[Path]:
    """Return all files below a folder whose path has no hidden part, sorted.

    An unreadable subfolder is an error; otherwise its files would be silently missing.
    """
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent) / name for name in names if not name.startswith(".")]
    files = sorted(path for path in paths if path.is_file())
    if not files:
        raise InputError(f"corpus {folder} is empty: the folder has no files")
    return files


def _raise(error: OSError) -> NoReturn:
    raise InputError(f"cannot read {error.filename}: {reason(error)}") from error


def _scatter(path: Path, folder: Path) -> bytes:
    """Return the key by which the files of a folder are ordered: a hash of the path in it."""
    return hashlib.sha256(str(path.relative_to(folder)).encode(errors="surrogateescape")).digest()
