"""Prepare a corpus: train the tokeniser, tokenise and split the documents, write shards.

The result is a folder that is named after a hash of its settings. Unfinished work is in a hidden
folder beside it, which is renamed when it is complete. A kill loses about a second of work; the
same call then continues and produces the same bytes, with any number of workers.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wirework.config import DataConfig
from wirework.config.data import HUB, VOCAB_SIZE, hub_name
from wirework.console import say
from wirework.data.answers import answers_for
from wirework.data.corpora import GENERATED, corpus_files, documents, is_marked
from wirework.data.document_split import split_hash, split_limit
from wirework.data.preparation_progress import Advance, report, say_waiting
from wirework.data.shards import Tokens
from wirework.data.text_files import stat_of
from wirework.data.tokenise import RECORD, SPLITS, TOKENIZER, read_token_record, tokenise
from wirework.data.tokenizer import Tokenizer, too_few_tokens, train_tokenizer
from wirework.data.tokenizer_files import TOKENIZER_CONFIG
from wirework.errors import InputError, UnreadableError, cannot_write
from wirework.file_system import sync_dir
from wirework.files import CHECKSUMS, locked, sha256, verify_dir, write_json
from wirework.leftovers import clear_held
from wirework.user_code import is_function

_LONGEST_WORDS = 180
"""Maximum characters of the corpus name in the folder name, which has at most 255 bytes."""
VERSION = 1
"""Part of the folder's hash; raised when a change of the code changes the bytes of a corpus."""


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus."""

    path: Path
    """Folder of the prepared corpus."""
    tokenizer: Tokenizer
    """Tokeniser of the corpus."""
    train: Tokens
    """Tokens of the training documents."""
    val: Tokens
    """Tokens of the held-out documents, which are chosen by the hash of their text."""
    fingerprint: str
    """SHA-256 of tokeniser and tokens, as hex; the same wherever the folder is."""


def prepare(config: DataConfig, cache: str | Path | None = None, progress: bool = True) -> Prepared:
    """Return the tokens of a corpus; prepare it if the cache does not have it yet.

    If another process prepares the same corpus, wait for its result.

    Args:
        config: the corpus and its settings; `workers` and `cache` do not change the result.
        cache: folder of prepared corpora; None for `config.cache`.
        progress: show a progress bar on standard error.

    Returns:
        The prepared corpus, with all its checksums verified.

    Raises:
        InputError: the corpus cannot be used (see `documents`), is too small to be split or to
            fill a vocabulary of the given size, or changed while it was read; the disk is full; or
            the cached corpus is damaged.
    """
    cache = config.cache if cache is None else Path(cache)
    tokenizer_given = None if config.tokenizer is None else Tokenizer.load(config.tokenizer)
    path = cache / _folder_name(config, tokenizer_given)
    if not path.is_dir():
        waiting = partial(say_waiting, str(path), progress)
        with locked(cache / f".{path.name}.lock", f"corpus {path}", waiting):
            if not path.is_dir():
                _make(config, tokenizer_given, path, progress)
    data = open_prepared(path)
    _check_vocabulary(config, data)
    return data


def open_prepared(path: str | Path) -> Prepared:
    """Open a prepared corpus and verify every checksum.

    Raises:
        InputError: there is no prepared corpus at `path`, or one of its files is missing, truncated
            or altered, or has ids that the tokeniser lacks.
    """
    path = Path(path)
    verify_dir(path)
    tokenizer = Tokenizer.load(path / TOKENIZER)
    return Prepared(
        path=path,
        tokenizer=tokenizer,
        train=Tokens(path / "train", vocab_size=tokenizer.vocab_size),
        val=Tokens(path / "val", vocab_size=tokenizer.vocab_size),
        fingerprint=sha256(path / CHECKSUMS),
    )


def _folder_name(config: DataConfig, tokenizer_given: Tokenizer | None) -> str:
    """Return NAME-HASH; the 12 digits of the hash cover everything that affects the bytes."""
    unused = {"workers", "cache", "tokenizer", "answers"}
    unused |= {
        generated.seed_setting
        for name, generated in GENERATED.items()
        if name not in (config.corpus, config.mix)
    }
    if config.mix is None:
        unused |= {"mix", "mix_share"}
    if config.subset is None:
        unused.add("subset")
    if tokenizer_given:
        unused |= {"vocab_size", "tokenizer_bytes"}
    # `auto` has the same hash as the number that it stands for.
    sized = config.model_copy(update={"vocab_size": _max_tokens(config)})
    hashed: dict[str, Any] = {
        "version": VERSION,
        "settings": sized.model_dump(mode="json", exclude=unused),
        "files": _file_stats(config),
        "tokenizer": tokenizer_given.fingerprint if tokenizer_given else answers_for(config),
    }
    if is_marked(config.corpus):
        hashed["documents"] = "marked"  # older versions cut such a file at line ends
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    name = hub_name(config.corpus)[0] if config.corpus.startswith(HUB) else config.corpus
    words = re.findall(r"\w+", Path(name).stem, re.ASCII)
    return f"{'-'.join(words)[:_LONGEST_WORDS] or 'corpus'}-{digest[:12]}"


def _max_tokens(config: DataConfig) -> int:
    """Return the size of the vocabulary; for `auto`, the largest size that it can get."""
    return VOCAB_SIZE if config.vocab_size == "auto" else config.vocab_size


def _check_vocabulary(config: DataConfig, data: Prepared) -> None:
    """Refuse a vocabulary that is smaller than requested because it was made with `auto`."""
    size = data.tokenizer.vocab_size
    if config.tokenizer is None and config.vocab_size not in ("auto", size):
        raise too_few_tokens(size, _max_tokens(config))


def _file_stats(config: DataConfig) -> list[tuple[str, int, int]] | None:
    """Return path, bytes and modification time (ns) of each file of the corpus and of its mix.

    None if the corpus has no local files and there is no mix.
    """
    corpora = [config.corpus] if config.mix is None else [config.corpus, config.mix]
    parts = [corpus_files(corpus) for corpus in corpora]
    if parts == [None]:
        return None
    stats = [(path.absolute(), stat_of(path)) for part in parts for path in part or ()]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _total_bytes(config: DataConfig) -> int | None:
    """Return the approximate size of the text in bytes, or None if unknown."""
    files = corpus_files(config.corpus)
    if files is None or is_function(config.corpus):
        return config.max_bytes
    total = sum(stat_of(path).st_size for path in files)
    if config.corpus in GENERATED:
        total = GENERATED[config.corpus].default_bytes
    if config.mix is not None:
        total = round(total / (1 - config.mix_share))
    return total if config.max_bytes is None else min(total, config.max_bytes)


def _make(
    config: DataConfig, tokenizer_given: Tokenizer | None, path: Path, progress: bool
) -> None:
    """Create the folder, or continue the work of an interrupted call.

    After an error in the corpus, the unfinished folder is removed if no document is done.
    """
    partial = path.with_name(f".{path.name}.partial")
    clear_held([partial, *(partial / split for split in SPLITS)])
    try:
        limit = split_limit(documents(config), config.val_fraction)
        if not (partial / TOKENIZER).exists():
            tokenizer = tokenizer_given or _train(config, limit, progress)
            tokenizer.save(partial / TOKENIZER)
        tokenise(config, partial, limit, _total_bytes(config), progress)
        if _folder_name(config, tokenizer_given) != path.name:
            shutil.rmtree(partial, ignore_errors=True)
            raise InputError(f"corpus {config.corpus} changed while it was read: run it again")
        _finish(partial, path)
    except UnreadableError:
        raise
    except InputError:
        if not read_token_record(partial).n_bytes:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _train(config: DataConfig, limit: int, progress: bool) -> Tokenizer:
    """Train the tokeniser on the first documents that are not held out."""
    total = min(config.tokenizer_bytes, _total_bytes(config) or config.tokenizer_bytes)
    vocab_size, is_auto = _max_tokens(config), config.vocab_size == "auto"
    with report("tokeniser", total, progress) as advance:
        texts = _training_texts(config, limit, advance)
        tokenizer = train_tokenizer(texts, vocab_size, answers_for(config), fewer=is_auto)
    if tokenizer.vocab_size < vocab_size:
        say(
            f"{config.corpus} fills a vocabulary of {tokenizer.vocab_size} tokens instead of "
            f"{vocab_size}: the smaller one is used"
        )
    return tokenizer


def _training_texts(config: DataConfig, limit: int, advance: Advance) -> Iterator[str]:
    """Yield the first documents that are not held out, `tokenizer_bytes` of text in all."""
    bytes_left = config.tokenizer_bytes
    for text in documents(config):
        if split_hash(text) >= limit:
            yield text
            size = len(text.encode())
            advance(size)
            bytes_left -= size
        if bytes_left <= 0:
            return


def _finish(partial: Path, path: Path) -> None:
    """Write the checksums and put the folder in its place."""
    names = [TOKENIZER, *(f"{split}/index.json" for split in SPLITS)]
    names += [name for name in [TOKENIZER_CONFIG] if (partial / name).exists()]
    write_json(partial / CHECKSUMS, {name: sha256(partial / name) for name in names})
    (partial / RECORD).unlink()
    try:
        partial.rename(path)
        sync_dir(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
