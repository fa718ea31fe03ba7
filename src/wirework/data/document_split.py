"""Train and validation split of documents, by the hash of a document's text."""

import hashlib
from collections.abc import Iterable

from wirework.errors import InputError

HASHES = 1 << 64


def digest(text: str) -> bytes:
    """Return the SHA-256 of a document."""
    return hashlib.sha256(text.encode()).digest()


def split_hash(text: str) -> int:
    """Return the number, 0 .. 2**64 - 1, that decides whether a document is held out."""
    return int.from_bytes(digest(text)[:8], "big")


def split_limit(documents: Iterable[str], fraction: float) -> int:
    """Return the limit such that documents with a `split_hash` below it are held out.

    The limit is `fraction` of the range of hashes, moved if needed so that both splits of a small
    corpus have a document. Documents are read until both have one: 1 / `fraction` on average.

    Args:
        documents: the corpus.
        fraction: share of documents to hold out, between 0 and 1.

    Raises:
        InputError: there are not two different documents.
    """
    limit = int(fraction * HASHES)
    lowest, highest = HASHES, 0
    for text in documents:
        number = split_hash(text)
        lowest, highest = min(lowest, number), max(highest, number)
        if lowest < limit <= highest:
            return limit
    if lowest >= highest:
        raise InputError(
            "the corpus is too small: it takes two different documents, one to train on and one "
            "to hold out"
        )
    return min(max(limit, lowest + 1), highest)
