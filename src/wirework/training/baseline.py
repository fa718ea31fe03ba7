"""Held-out loss of a bigram table: a model below it has learnt more than pairs of tokens.

p(next | current) = (count(current, next) + alpha p(next)) / (count(current) + alpha), where
p(next) = (count(next) + 1) / (N + V). These are counts of the training tokens, smoothed towards
single tokens. alpha is chosen from a grid: counts are taken without the last twentieth of the
training tokens, and the loss is measured on it.
Shapes: B sequences, T tokens, V vocabulary.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from wirework.data import Batch, Tokens
from wirework.errors import InputError

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int64]

_ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_PIECE = 1 << 22  # tokens counted at once: 32 MB as int64
MAX_VOCAB = 1 << 14  # a table of this vocabulary takes 2 GB


def bigram_loss(train: Tokens, val: Iterable[Batch], vocab_size: int) -> float:
    """Return the held-out loss of the smoothed bigram table of the training tokens.

    Args:
        train: training tokens, which are counted.
        val: held-out batches (tokens, targets), (B, T) each.
        vocab_size: V; token ids are below it.

    Returns:
        Mean nats per token.

    Raises:
        InputError: fewer than 2 training tokens, no batch, or a vocabulary above 16,384 tokens.
    """
    pairs = [(tokens.ravel(), targets.ravel()) for tokens, targets in val]
    if not pairs:
        raise InputError("a held-out loss needs at least one batch")
    current, following = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return table_loss(*smoothed_counts(train, vocab_size), current, following)


def bigram_table(train: Tokens, vocab_size: int) -> npt.NDArray[np.float32]:
    """Return the initial bigram table, (V, V): log p(next | current), rows by current token.

    Raises:
        InputError: fewer than 2 training tokens, or a vocabulary above 16,384.
    """
    counts, alpha = smoothed_counts(train, vocab_size)
    single = counts.sum(0)
    backed_off = (single + 1) / (single.sum() + vocab_size)
    table = np.log(counts + alpha * backed_off) - np.log(counts.sum(1, keepdims=True) + alpha)
    return np.asarray(table, np.float32)


def smoothed_counts(train: Tokens, vocab_size: int) -> tuple[Counts, float]:
    """Return the (V, V) counts of all pairs of training tokens, and alpha.

    Raises:
        InputError: fewer than 2 training tokens, or a vocabulary above 16,384.
    """
    if vocab_size > MAX_VOCAB:
        raise InputError(f"a bigram table of {vocab_size} tokens is too large, at most {MAX_VOCAB}")
    if train.n_tokens < 2:
        raise InputError(f"a bigram table needs 2 training tokens or more, got {train.n_tokens}")
    cut = train.n_tokens - max(train.n_tokens // 20, 1)
    counts = count_pairs(train, 0, cut, vocab_size)
    alpha = best_alpha(counts, train, cut)
    counts += count_pairs(train, cut - 1, train.n_tokens, vocab_size)
    return counts, alpha


def count_pairs(train: Tokens, start: int, end: int, vocab_size: int) -> Counts:
    """Return (V, V) counts of pairs in [start, end): rows by current token, columns by next."""
    counts = np.zeros(vocab_size * vocab_size, np.int64)
    for first in range(start, end - 1, _PIECE):
        length = min(_PIECE + 1, end - first)  # one more: the pair across the border
        piece = train.slice(first, length).astype(np.int64)
        counts += np.bincount(piece[:-1] * vocab_size + piece[1:], minlength=len(counts))
    return counts.reshape(vocab_size, vocab_size)


def best_alpha(counts: Counts, train: Tokens, cut: int) -> float:
    """Return the alpha of the grid with the lowest loss on the training tokens from `cut`."""
    length = min(train.n_tokens - cut, _PIECE)
    tail = train.slice(cut - 1, length + 1).astype(np.int64)
    return min(_ALPHAS, key=lambda alpha: table_loss(counts, alpha, tail[:-1], tail[1:]))


def table_loss(counts: Counts, alpha: float, current: Ids, following: Ids) -> float:
    """Return the mean of -log p(following | current) in nats over pairs of ids, each (N,)."""
    single = counts.sum(0)
    backed_off = (single[following] + 1) / (single.sum() + len(single))
    smoothed = counts[current, following] + alpha * backed_off
    return float(-np.log(smoothed / (counts.sum(1)[current] + alpha)).mean())
