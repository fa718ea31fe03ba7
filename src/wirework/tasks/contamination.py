"""Contamination: which prompts of a task occur in a corpus that a model is trained on.

Three measures, from strict to loose: the whole prompt; the whole prompt up to names and literals;
the last tokens of the prompt. A fourth, the last line of the prompt, is what a short prompt shares
with any text of its kind. Occurrences are found by hashes of token sequences, so a corpus is read
once, document by document.

Tokens here are words, signs and line breaks with their indentation, independent of any tokeniser.
A tab counts as four spaces. White space at the end of a prompt is left out, because a text goes on
with more of it there: after a loop line, the line break is one token with the next indentation.
"""

import hashlib
import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wirework.config import DataConfig
from wirework.data import documents
from wirework.errors import InputError
from wirework.summaries import Report
from wirework.tasks.built_in import PYTHON_TASKS
from wirework.tasks.load import load_task
from wirework.tasks.task import Task

WINDOW = 8
"""Tokens at the end of a prompt that are searched for as a window."""
DEFAULT_BYTES = 60_000_000
"""Bytes of a corpus that are read, unless said otherwise."""

_TOKEN = re.compile(r"\n[ \t]*|\w+|[^\w\s]")
_PART = re.compile(
    r"""[rbfuRBFU]{0,2}(?:"{3}[\s\S]*?(?:"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)"""
    r"""|"(?:\\.|[^"\\\n])*(?:"|\Z)|'(?:\\.|[^'\\\n])*(?:'|\Z))"""
    r"""|\#[^\n]*|\n[ \t]*|\d[\w.]*|\w+|[^\w\s]"""
)
"""A string (the last one may be open), a comment, a line break, a number, a word or a sign."""
_BATCH_CHARACTERS = 1_000_000
_MOST_KEPT = 1_000_000
"""Tokens whose hash is kept; a corpus has endlessly many strings."""

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, repr=False)
class Contamination(Report):
    """Shares of a task's distinct prompts that occur in a corpus."""

    task: str
    n_prompts: int
    """Number of distinct prompts."""
    exact: float
    """Whole prompt, up to spaces within a line and white space at its end."""
    up_to_names: float
    """Whole prompt with any names, numbers, strings and comments."""
    window: float
    """Last 8 tokens of the prompt; a shorter prompt whole."""
    last_line: float
    """Last line of the prompt, up to its indentation, at the beginning of a line."""

    def summary(self) -> dict[str, Any]:
        """Return the shares by name."""
        names = ("exact", "up_to_names", "window", "last_line")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ContaminationReport:
    """Contamination of several tasks by one corpus."""

    tasks: tuple[Contamination, ...]
    n_bytes: int
    """Bytes of the corpus that were read."""
    n_documents: int

    @property
    def contained(self) -> dict[str, float]:
        """Task to the share of prompts in the corpus up to names, for tasks with any."""
        return {row.task: row.up_to_names for row in self.tasks if row.up_to_names > 0}


def contamination(
    corpus: str | DataConfig,
    tasks: Iterable[Task | str | Path] | None = None,
    *,
    max_bytes: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> ContaminationReport:
    """Measure how many prompts of tasks occur in a corpus.

    Args:
        corpus: name or path as in `DataConfig.corpus`, or settings with a corpus and its mix.
        tasks: tasks, or what `load_task` takes; None: the twenty Python tasks.
        max_bytes: bytes of the corpus to read; None: those of the settings, or 60 MB of a corpus.
        on_progress: gets the number of bytes read so far.

    Raises:
        InputError: the corpus or a task cannot be read, or `max_bytes` is below 1.
    """
    if max_bytes is not None and max_bytes < 1:
        raise InputError(f"max_bytes must be at least 1, got {max_bytes}")
    loaded = [load_task(task) for task in (PYTHON_TASKS if tasks is None else tasks)]
    if isinstance(corpus, DataConfig):
        config = corpus if max_bytes is None else corpus.model_copy(update={"max_bytes": max_bytes})
    else:
        config = DataConfig.of({"corpus": corpus, "max_bytes": max_bytes or DEFAULT_BYTES})
    prompts = [
        list(dict.fromkeys(prompt for pair in task.pairs for prompt in pair.prompts))
        for task in loaded
    ]
    search = _Search.of(prompts)
    n_bytes = n_documents = 0
    for texts in _batches(documents(config)):
        search.read(texts)
        n_bytes += sum(len(text.encode()) for text in texts)
        n_documents += len(texts)
        on_progress(n_bytes)
    rows = [
        Contamination(task.name, len(prompts[i]), *(found.share(i) for found in search.sequences()))
        for i, task in enumerate(loaded)
    ]
    return ContaminationReport(tuple(rows), n_bytes, n_documents)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield documents in batches that are large enough for array operations."""
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def skeleton(text: str) -> list[str]:
    """Return a text as tokens in which all names, numbers, strings and comments are alike."""
    return [_kind(part) for part in _PART.findall(text)]


def _kind(part: str) -> str:
    if part[0] == "#":
        return "#"
    if part[-1] in "'\"" or part.lstrip("rbfuRBFU")[:1] in ("'", '"'):
        return "'"
    if part[0].isdigit():
        return "0"
    is_name = part.isidentifier() and not keyword.iskeyword(part)
    return "N" if is_name else part


def _hash(token: str) -> int:
    digest = hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _hash_of_kind(part: str) -> int:
    return _hash(_kind(part))


class _Ids(dict[str, int]):
    """Token to a 64-bit hash."""

    def __init__(self, hash_of: Callable[[str], int]):
        super().__init__()
        self._hash_of = hash_of

    def __missing__(self, token: str) -> int:
        if len(self) > _MOST_KEPT:
            self.clear()
        self[token] = value = self._hash_of(token)
        return value

    def of(self, tokens: Iterable[str]) -> Hashes:
        """Return the hash of each token."""
        return np.array([self[token] for token in tokens], dtype=np.uint64)


class _Sequences:
    """Token sequences that are searched for, and which of them were found."""

    def __init__(self, groups: Sequence[Sequence[Hashes]]):
        """Prepare the search.

        Args:
            groups: sequences of hashes of tokens, in groups that are counted apart.
        """
        self._groups = [[_sequence_hash(sequence) for sequence in group] for group in groups]
        self._found: set[int] = set()
        by_length: dict[int, list[int]] = {}
        heads: list[int] = []
        for group, hashes in zip(groups, self._groups, strict=True):
            for sequence, value in zip(group, hashes, strict=True):
                by_length.setdefault(len(sequence), []).append(value)
                if len(sequence) > WINDOW:
                    heads.append(_sequence_hash(sequence[:WINDOW]))
        self._by_length = {length: _distinct(values) for length, values in by_length.items()}
        self._heads = _distinct(heads)

    def search(self, ids: Hashes, starts: NDArray[np.int64]) -> None:
        """Look for the sequences at some positions of a text."""
        values = np.zeros(len(starts), dtype=np.uint64)
        for length in range(1, max(self._by_length, default=0) + 1):
            inside = starts + length <= len(ids)
            starts, values = starts[inside], values[inside]
            values = values * np.uint64(_BASE) + ids[starts + length - 1]
            if length in self._by_length:
                self._found.update(values[np.isin(values, self._by_length[length])].tolist())
            if length == WINDOW:
                may_continue = np.isin(values, self._heads)
                starts, values = starts[may_continue], values[may_continue]
            if not len(starts):
                return

    def share(self, group: int) -> float:
        """Return the share of the sequences of a group that were found."""
        hashes = self._groups[group]
        return sum(value in self._found for value in hashes) / max(1, len(hashes))


_BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial hash of a sequence, modulo 2**64."""
_MASK = (1 << 64) - 1


def _sequence_hash(sequence: Hashes) -> int:
    """Return the hash that `_Sequences.search` computes token by token, in whole numbers."""
    value = 0
    for token in sequence.tolist():
        value = (value * _BASE + token) & _MASK
    return value


def _distinct(values: list[int]) -> Hashes:
    return np.unique(np.array(values, dtype=np.uint64))


@dataclass(frozen=True)
class _Search:
    """Search for the prompts of tasks."""

    exact: _Sequences
    up_to_names: _Sequences
    window: _Sequences
    last_line: _Sequences
    token_ids: _Ids
    kind_ids: _Ids

    @classmethod
    def of(cls, prompts: Sequence[Sequence[str]]) -> "_Search":
        """Prepare the search for the prompts of each task."""
        ids, kinds = _Ids(_hash), _Ids(_hash_of_kind)
        prompts = [[_spaced(prompt).rstrip() for prompt in group] for group in prompts]
        tokens = [[ids.of(_TOKEN.findall(prompt)) for prompt in group] for group in prompts]
        return cls(
            exact=_Sequences(tokens),
            up_to_names=_Sequences(
                [[kinds.of(_PART.findall(prompt)) for prompt in group] for group in prompts]
            ),
            window=_Sequences([[sequence[-WINDOW:] for sequence in group] for group in tokens]),
            last_line=_Sequences(
                [[ids.of(_TOKEN.findall(_last_line(prompt))) for prompt in g] for g in prompts]
            ),
            token_ids=ids,
            kind_ids=kinds,
        )

    def sequences(self) -> tuple[_Sequences, ...]:
        """Return the four searches, in the order of the fields of `Contamination`."""
        return self.exact, self.up_to_names, self.window, self.last_line

    def read(self, texts: Sequence[str]) -> None:
        """Search documents, none of which continues the one before."""
        texts = [_spaced(text) for text in texts]
        # A document begins on a line of its own; the null character ends it.
        words = [word for text in texts for word in (*_TOKEN.findall(f"\n{text}"), "\0")]
        tokens = self.token_ids.of(words)
        parts = self.kind_ids.of(
            part for text in texts for part in (*_PART.findall(f"\n{text}"), "\0")
        )
        everywhere = np.arange(len(tokens))
        is_break = np.fromiter((word[0] == "\n" for word in words), bool, len(words))
        self.exact.search(tokens, everywhere)
        self.window.search(tokens, everywhere)
        self.up_to_names.search(parts, np.arange(len(parts)))
        self.last_line.search(tokens, np.flatnonzero(is_break) + 1)


def _spaced(text: str) -> str:
    return text.replace("\t", "    ")


def _last_line(prompt: str) -> str:
    return prompt.rpartition("\n")[2].strip()
