"""The gradients of a linear layer of which only some entries are trained.

Shapes: T tokens, D inputs, M outputs, E trained entries.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wirework.block_pool import empty
from wirework.nn.kernels.pieces import each_piece
from wirework.nn.kernels.sparse_linear import CompressedRows

_PIECE_TOKENS = 512  # tokens whose gradients are summed apart, whatever the number of threads


class LayerGradients(NamedTuple):
    """Gradients of a linear layer, float32."""

    x: Tensor | None
    """(T, D) of the input, if it is wanted."""
    entries: Tensor
    """(E,), in the order of the entries."""
    bias: Tensor | None
    """(M,), if it is wanted."""


def layer_gradients(
    grad: Tensor,
    x: Tensor,
    entries: CompressedRows,
    *,
    across: CompressedRows | None = None,
    with_bias: bool = False,
) -> LayerGradients:
    """Return gradients, given that of the output `x @ weight.T + bias`.

    Args:
        grad: (T, M) gradient of the output, float32 on the CPU.
        x: (T, D) input.
        entries: trained entries of the weight, (M, D); their values are not read.
        across: the transposed weight, (D, M), if the gradient of the input is wanted.
        with_bias: whether that of the bias is wanted.

    Returns:
        The gradients; the same bits for any number of threads.
    """
    from wirework.nn.kernels.compiled.layer_gradients import layer_gradients as fill

    inputs, outputs = (t.detach().contiguous().numpy() for t in (x, grad))
    (n_tokens, width), n_outputs = inputs.shape, outputs.shape[1]
    n_pieces = -(-n_tokens // _PIECE_TOKENS)
    to_x = empty((0, width) if across is None else inputs.shape)
    entry_sums = torch.empty(n_pieces, len(entries.columns))
    bias_sums = torch.empty(n_pieces, n_outputs if with_bias else 0)
    unused = (entries.starts, entries.columns, entries.values)
    rows = unused if across is None else across[:3]
    filled = (to_x.numpy(), entry_sums.numpy(), bias_sums.numpy())

    def work(pieces: slice) -> None:
        for piece in range(pieces.start, min(pieces.stop, n_pieces)):
            tokens = slice(piece * _PIECE_TOKENS, (piece + 1) * _PIECE_TOKENS)
            fill(
                inputs[tokens], outputs[tokens], (entries.starts, entries.columns), rows,
                filled[0][tokens], filled[1][piece], filled[2][piece],
            )  # fmt: skip

    each_piece(n_pieces, _PIECE_TOKENS * max(width, n_outputs), work)
    return LayerGradients(
        None if across is None else to_x,
        entry_sums.sum(0),
        bias_sums.sum(0) if with_bias else None,
    )
