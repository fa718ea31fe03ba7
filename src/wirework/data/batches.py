"""Batches as a pure function of (seed, step, rank), so that a resumed run sees the same batches.

Each epoch cuts the tokens into windows, from a random offset, and visits them in a random order.
The inputs of windows do not overlap. The order is a keyed permutation (a Feistel network with cycle
walking: Black and Rogaway 2002), which is computed, not stored, so memory does not grow with the
corpus. Shapes: B sequences, T = n_ctx tokens.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.console import warn_once
from wirework.data.shards import Tokens
from wirework.errors import InputError, number_of

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Batch = tuple[Int64, Int64]

ROUNDS = 8
"""Rounds of the Feistel network. With fewer, the order of a few windows is visibly biased."""
_BLOCK = 1024
"""Windows of an epoch whose places are computed together, in a few times the time of sixteen."""
SMALL_SPLIT = 8192
"""Largest split, in tokens, for which a context longer than the split is shortened to fit. For a
larger split it is an error, since attention over more tokens would take too long."""


class Batches:
    """Training batches of one split.

    `at(step)` depends on nothing but its arguments, so steps can be requested in any order.
    """

    def __init__(self, tokens: Tokens, n_ctx: int, batch_size: int, seed: int):
        """Cut `tokens` into windows.

        Args:
            tokens: the split to read.
            n_ctx: tokens per sequence; less if a small split is shorter.
            batch_size: sequences per batch of one rank; windows repeat if the split has fewer.
            seed: seed of the order and the offsets; 0 or more.

        Raises:
            InputError: the split has fewer than two tokens, or is too large to shorten the context
                to it but shorter than `n_ctx`.
        """
        n_ctx = _fitting(tokens, n_ctx)
        self._tokens = tokens
        self._n_ctx = n_ctx
        self._batch_size = batch_size
        self._seed = seed
        n_fitting = (tokens.n_tokens - 1) // n_ctx
        # One window fewer than fit leaves room for any offset below n_ctx.
        self.n_windows = max(n_fitting - 1, 1)
        self._n_offsets = min(n_ctx, tokens.n_tokens - self.n_windows * n_ctx)
        self._last_block: tuple[tuple[int, int], list[int]] = ((-1, -1), [])

    def at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the batch of a step: inputs and targets, (B, T) int64 each.

        Args:
            step: 0 or more. A step visits `batch_size * world` windows.
            rank: number of this process, below `world`; within an epoch, ranks share no window.
            world: number of processes that train together.
        """
        first = (step * world + rank) * self._batch_size
        return _gather(self._tokens, self.starts(first, self._batch_size), self._n_ctx)

    def starts(self, first: int, count: int) -> list[int]:
        """Return the first tokens of windows first .. first + count - 1 of the run.

        The run visits window g as number g % n_windows of epoch g // n_windows.
        """
        starts: list[int] = []
        while len(starts) < count:
            epoch, number = divmod(first + len(starts), self.n_windows)
            block, skipped = divmod(number, _BLOCK)
            starts += self._block_starts(epoch, block)[skipped : skipped + count - len(starts)]
        return starts

    def _block_starts(self, epoch: int, block: int) -> list[int]:
        """Return the first tokens of the windows of a block, which is kept until the next one."""
        known, starts = self._last_block
        if known != (epoch, block):
            stop = min((block + 1) * _BLOCK, self.n_windows)
            starts = self._epoch_starts(epoch, np.arange(block * _BLOCK, stop, dtype=np.uint64))
            self._last_block = ((epoch, block), starts)
        return starts

    def _epoch_starts(self, epoch: int, numbers: UInt64) -> list[int]:
        """Return the first tokens of windows of an epoch, given their numbers in its order."""
        sequence = np.random.SeedSequence([self._seed, epoch])
        keys = sequence.generate_state(ROUNDS + 1, np.uint64).astype(np.uint64)
        offset = int(keys[-1]) % self._n_offsets
        windows = permute(numbers, self.n_windows, keys[:-1])
        return [offset + int(window) * self._n_ctx for window in windows]


def eval_batches(tokens: Tokens, n_ctx: int, batch_size: int, n: int) -> list[Batch]:
    """Return fixed batches that are spread over a split, without a repeated window.

    Args:
        tokens: the split.
        n_ctx: tokens per sequence.
        batch_size: sequences per batch.
        n: number of batches.

    Returns:
        Inputs and targets, (B, T) int64 each, of at most `n` batches. A split with fewer windows
        gives fewer batches, or one smaller batch if it has fewer windows than `batch_size`. A small
        split of less than `n_ctx` tokens gives one shorter window.

    Raises:
        InputError: the split has fewer than two tokens, or is too large to shorten the context to
            it but shorter than `n_ctx`.
    """
    n_ctx = _fitting(tokens, n_ctx)
    windows = (tokens.n_tokens - 1) // n_ctx
    rows = min(batch_size, windows)
    count = min(n, windows // rows)
    starts = [i * windows // (count * rows) * n_ctx for i in range(count * rows)]
    return [_gather(tokens, starts[i : i + rows], n_ctx) for i in range(0, count * rows, rows)]


def permute(values: UInt64, size: int, keys: UInt64) -> UInt64:
    """Apply a keyed permutation of 0 .. size - 1 to each of `values`.

    Args:
        values: (n,) uint64, each below `size`.
        size: number of values that the permutation covers.
        keys: (rounds,) uint64, one per Feistel round.

    Returns:
        (n,) uint64. Applied to all numbers below `size`, each of them occurs once.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    out = _feistel(values, half, keys)
    # The network permutes 0 .. 4^k - 1. Repeat it until the value is below `size` (cycle walking).
    while (outside := out >= size).any():
        out[outside] = _feistel(out[outside], half, keys)
    return out


def _feistel(values: UInt64, half: np.uint64, keys: UInt64) -> UInt64:
    """Permute the numbers of 2 `half` bits, one round per key."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(x: UInt64) -> UInt64:
    """Scramble 64-bit words (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _fitting(tokens: Tokens, n_ctx: int) -> int:
    """Return the longest context, at most `n_ctx`, that fits a split with its last target."""
    if tokens.n_tokens > n_ctx:
        return n_ctx
    if tokens.n_tokens < 2:
        raise InputError(
            f"{tokens.name} has {number_of(tokens.n_tokens, 'token')}: a context takes two or more"
        )
    if tokens.n_tokens > SMALL_SPLIT:
        raise InputError(
            f"context of {number_of(n_ctx, 'token')} needs more than the "
            f"{number_of(tokens.n_tokens, 'token')} of {tokens.name}: lower model.n_ctx"
        )
    warn_once(
        f"{tokens.name} has {number_of(tokens.n_tokens, 'token')}, too few for a context of "
        f"{n_ctx}: contexts of {number_of(tokens.n_tokens - 1, 'token')} are read"
    )
    return tokens.n_tokens - 1


def _gather(tokens: Tokens, starts: list[int], n_ctx: int) -> Batch:
    """Read windows of n_ctx + 1 tokens; targets are the inputs shifted by one."""
    windows = np.stack([tokens.slice(start, n_ctx + 1) for start in starts]).astype(np.int64)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])
