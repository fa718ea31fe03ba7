"""Tokenise documents into the shards of both splits, with a record from which to resume.

The record says how many documents are done. It is written after their tokens are on the disk. To
resume, tokens written after the record are dropped, the documents that it counts are read again to
check that they have not changed, and tokenising continues with the next document.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from wirework import files
from wirework.config import DataConfig
from wirework.console import warn_once
from wirework.data.corpora import documents
from wirework.data.document_split import digest, split_hash
from wirework.data.encoding import Encode, UInt32, encode_chunks
from wirework.data.preparation_progress import Advance, report
from wirework.data.shards import ShardWriter, dtype_for
from wirework.data.tokenizer import Tokenizer
from wirework.errors import DamagedError
from wirework.files import is_file

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")
RECORD = "progress.json"
TOKENIZER = "tokenizer.json"
CHUNK_BYTES = 1 << 20
"""Text sent to a worker at a time."""
RECORD_SECONDS = 1.0
"""Minimum seconds between two records, since each one waits for the disk."""


def _zeros() -> dict[Split, int]:
    return dict.fromkeys(SPLITS, 0)


@dataclass(frozen=True)
class Record:
    """Progress of tokenising, counted from the beginning of the corpus."""

    n_bytes: int = 0
    """Bytes of text (UTF-8)."""
    n_documents: dict[Split, int] = field(default_factory=_zeros)
    """Documents of each split."""
    n_tokens: dict[Split, int] = field(default_factory=_zeros)
    """Tokens of each split."""
    chain: str = ""
    """Hash over all documents so far, as hex, to detect a changed corpus."""

    def with_document(self, text: str, split: Split) -> "Record":
        """Return the record after one more document; its tokens are added when known."""
        return replace(
            self,
            n_bytes=self.n_bytes + len(text.encode()),
            n_documents=self.n_documents | {split: self.n_documents[split] + 1},
            chain=hashlib.sha256(bytes.fromhex(self.chain) + digest(text)).hexdigest(),
        )


@dataclass
class _Chunk:
    """Consecutive documents that one worker tokenises in one go."""

    after: Record
    """Record after these documents, without their tokens."""
    texts: dict[Split, list[str]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    """Documents of each split; empty once they are tokenised."""
    ids: dict[Split, UInt32] = field(default_factory=dict)
    """Token ids of each split, (n,), once they are known."""
    n_bytes: int = 0
    """Bytes of text (UTF-8)."""


def tokenise(
    config: DataConfig, folder: Path, limit: int, total_bytes: int | None, progress: bool
) -> Record:
    """Write the shards of `train` and `val` in `folder`; resume an earlier call that was stopped.

    Args:
        config: the corpus, and `shard_tokens` and `workers`.
        folder: folder with `tokenizer.json`, to which `train/`, `val/` and the record are written.
        limit: documents with a `split_hash` below it are held out.
        total_bytes: size of the corpus if known, for the progress bar.
        progress: show the bar.

    Returns:
        The record after the last document.

    Raises:
        InputError: the corpus cannot be used, or the disk is full.
    """
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    record, remaining = _resume(config, folder, limit)
    writers = _writers(config, folder, tokenizer, record)
    texts = _chunks(remaining, record, limit)
    with (
        report("tokens", total_bytes, progress, done=record.n_bytes) as advance,
        closing(encode_chunks(folder / TOKENIZER, _encode, texts, config.workers)) as chunks,
    ):
        record = _write(chunks, writers, record, folder, advance)
    for split, writer in writers.items():
        writer.finish(record.n_documents[split])
    return record


def read_token_record(folder: Path) -> Record:
    """Return the record in a folder, or an empty one if it is missing or damaged.

    Raises:
        UnreadableError: the system failed to read it.
    """
    path = folder / RECORD
    if not is_file(path):
        return Record()
    try:
        return Record(**files.read_record(path))
    except DamagedError:
        warn_once(f"{path} is damaged, or of an older version: the corpus is prepared anew")
        return Record()


def _resume(config: DataConfig, folder: Path, limit: int) -> tuple[Record, Iterator[str]]:
    """Return the record and the documents that come after it.

    If the corpus has changed since the record was written, this is an empty record and all
    documents.
    """
    record = read_token_record(folder)
    remaining = documents(config)
    reread = Record()
    for text in islice(remaining, sum(record.n_documents.values())):
        reread = reread.with_document(text, _split(text, limit))
    if reread.chain == record.chain:
        return record, remaining
    return Record(), documents(config)


def _writers(
    config: DataConfig, folder: Path, tokenizer: Tokenizer, record: Record
) -> dict[Split, ShardWriter]:
    dtype = dtype_for(tokenizer.vocab_size)
    return {
        split: ShardWriter(folder / split, dtype, config.shard_tokens, record.n_tokens[split])
        for split in SPLITS
    }


def _split(text: str, limit: int) -> Split:
    return "val" if split_hash(text) < limit else "train"


def _chunks(texts: Iterable[str], record: Record, limit: int) -> Iterator[_Chunk]:
    """Group documents into chunks of enough text to send to a worker."""
    chunk = _Chunk(record)
    for text in texts:
        split = _split(text, limit)
        chunk.texts[split].append(text)
        record = record.with_document(text, split)
        chunk.n_bytes += record.n_bytes - chunk.after.n_bytes
        chunk.after = record
        if chunk.n_bytes >= CHUNK_BYTES:
            yield chunk
            chunk = _Chunk(record)
    if chunk.n_bytes:
        yield chunk


def _encode(encode: Encode, chunk: _Chunk) -> _Chunk:
    ids = {split: encode(chunk.texts[split]) for split in SPLITS}
    return replace(chunk, ids=ids, texts={})


def _write(
    chunks: Iterable[_Chunk],
    writers: dict[Split, ShardWriter],
    record: Record,
    folder: Path,
    advance: Advance,
) -> Record:
    """Append the chunks in order, saving the record from time to time; return the last record."""
    last_save = time.monotonic()
    for chunk in chunks:
        for split, writer in writers.items():
            writer.append(chunk.ids[split])
        record = replace(
            chunk.after, n_tokens={split: writer.n_tokens for split, writer in writers.items()}
        )
        advance(chunk.n_bytes)
        if time.monotonic() - last_save >= RECORD_SECONDS:
            _save(record, writers, folder)
            last_save = time.monotonic()
    _save(record, writers, folder)
    return record


def _save(record: Record, writers: dict[Split, ShardWriter], folder: Path) -> None:
    # Tokens first: a record must never count tokens that are not on the disk.
    for writer in writers.values():
        writer.flush()
    files.write_record(folder / RECORD, asdict(record))
