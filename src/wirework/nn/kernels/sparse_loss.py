"""Next-token loss with an unembedding that has few nonzero entries, in one pass over each tile.

`loss.py` uses it where the logits are computed from compressed rows. Shapes: N tokens, D width, V
vocabulary, E nonzero entries.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wirework.block_pool import empty
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.products import product
from wirework.nn.kernels.sparse_linear import CompressedRows

_UNIT = 256  # tokens whose gradients are summed apart, whatever the number of threads
_PIECE = 4 * _UNIT  # tokens whose logits' gradients are in memory at once, if they are needed


class Wanted(NamedTuple):
    """Which gradients to compute."""

    state: bool
    weight: bool
    entries: CompressedRows | None
    """Compressed rows whose entries' gradient is wanted; only the indices are read."""
    bigram: bool
    bias: bool


class LossAndGradients(NamedTuple):
    """The mean loss in nats, a float32 scalar, and the gradients that were wanted."""

    loss: Tensor
    state: Tensor | None
    """(N, D)."""
    weight: Tensor | None
    """(V, D)."""
    entries: Tensor | None
    """(E,) of `Wanted.entries`."""
    bigram: Tensor | None
    """(V, V)."""
    bias: Tensor | None
    """(V,)."""


def sparse_loss(
    state: Tensor,
    rows: CompressedRows,
    targets: Tensor,
    *,
    bigram: Tensor | None,
    tokens: Tensor | None,
    bias: Tensor | None,
    wanted: Wanted,
) -> LossAndGradients:
    """Return the mean cross-entropy of `state @ rows.T + bias + bigram[tokens]`, and gradients.

    Args:
        state: (N, D) float32 on the CPU.
        rows: the unembedding, (V, D).
        targets: (N,) int64.
        bigram: (V, V), or None.
        tokens: (N,) int64 current tokens; needed with `bigram`.
        bias: (V,), or None.
        wanted: the gradients to compute.

    Returns:
        Loss and gradients; the same bits for any number of threads.
    """
    from wirework.nn.kernels.compiled.cross_entropy import loss_of_tokens

    count, width = state.shape
    n_vocabulary = len(rows.starts) - 1
    n_units = -(-count // _UNIT)
    losses = np.empty(count)
    needs_slopes = wanted.weight or wanted.bigram
    slopes = torch.empty((n_vocabulary, min(_PIECE, count)) if needs_slopes else (0, 0))
    to_state = empty((count if wanted.state else 0, width))
    to_weight = torch.zeros(n_vocabulary, width) if wanted.weight else None
    to_bigram = torch.zeros(n_vocabulary, n_vocabulary) if wanted.bigram else None
    n_entries = 0 if wanted.entries is None else len(wanted.entries.columns)
    entry_sums = torch.zeros(n_units, n_entries)
    bias_sums = torch.zeros(n_units, n_vocabulary if wanted.bias else 0)
    indices = rows if wanted.entries is None else wanted.entries
    ids = targets if tokens is None else tokens
    inputs, outputs = _array(state), to_state.numpy()
    biases = np.zeros(n_vocabulary, np.float32) if bias is None else _array(bias)
    table = np.zeros((0, 0), np.float32) if bigram is None else _array(bigram)
    is_graded = any([wanted.state, wanted.weight, n_entries, wanted.bigram, wanted.bias])

    def work(units: slice, piece: int) -> None:
        for unit in range(units.start, min(units.stop, _PIECE // _UNIT)):
            part = slice(piece + unit * _UNIT, min(piece + (unit + 1) * _UNIT, count))
            if part.start >= count:
                return
            number = part.start // _UNIT
            loss_of_tokens(
                inputs[part], rows[:3], biases, table, ids.numpy()[part], targets.numpy()[part],
                1 / count, losses[part], is_graded, slopes.numpy(), unit * _UNIT,
                outputs[part], (indices.starts, indices.columns), entry_sums.numpy()[number],
                bias_sums.numpy()[number],
            )  # fmt: skip

    for start in range(0, count, _PIECE):
        each_piece(_PIECE // _UNIT, _UNIT * n_vocabulary, partial(work, piece=start))
        n = min(_PIECE, count - start)
        part = slopes[:, :n]
        if to_weight is not None:
            to_weight += product(part, state[start : start + n])
        if to_bigram is not None:
            to_bigram.index_add_(0, ids[start : start + n], part.t().contiguous())
    return LossAndGradients(
        torch.tensor(losses.mean(), dtype=torch.float32),
        to_state if wanted.state else None,
        to_weight,
        None if wanted.entries is None else entry_sums.sum(0),
        to_bigram,
        bias_sums.sum(0) if wanted.bias else None,
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array
