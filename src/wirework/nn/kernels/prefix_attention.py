"""Causal attention of the distinct prefixes of a batch, for the channels that are not zero.

Shapes: R masks, U queries, Q rows of q, S rows of k and v, T tokens, H heads, V value channels.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.pieces import each_piece

_Ints = NDArray[np.int64]
_Where = tuple[_Ints, _Ints, _Ints, _Ints, _Ints, _Ints, _Ints, NDArray[np.float32], np.float32]


class HeadChannels(NamedTuple):
    """The channels of the heads whose values are not all zero."""

    pairs: Tensor
    """(P, 2) int64, channels of q and k that are multiplied, those of a head side by side."""
    ends: Tensor
    """(H, 2) int64, the pair and the value channel after the last ones of each head."""
    sink: Tensor
    """(H,) sink logits, -inf for none."""
    scale: float
    """Factor on the scores."""
    window: int | None
    """Number of positions that a query attends to, including its own; None for all."""


class Queries(NamedTuple):
    """Where queries, and the keys and values that they attend to, are found."""

    rows: Tensor
    """(U,) int64, row of q of each query."""
    ancestors: Tensor
    """(U, T) int64, row of k and v at each position up to the query's own."""
    positions: Tensor
    """(U,) int64, position of each query."""


def prefix_attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Queries, heads: HeadChannels
) -> Tensor:
    """Return the output of attention for each query.

    Args:
        q: (R, Q, any) float32 on the CPU.
        k: (R, S, any).
        v: (R, S, V), the channels of a head side by side.
        queries: the queries and what they attend to.
        heads: the channels of each head.

    Returns:
        (R, U, V); gradients flow to q, k and v, the same bits for any number of threads.
    """
    out: Tensor = _PrefixAttention.apply(q, k, v, queries, heads)  # type: ignore[no-untyped-call]
    return out


class _PrefixAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, queries: Queries, heads: HeadChannels
    ) -> Tensor:
        from wirework.nn.kernels.compiled.prefix_attention import attend

        q, k, v = (t.detach().contiguous() for t in (q, k, v))
        n_masks, n_queries = len(q), len(queries.rows)
        out = q.new_empty(n_masks, n_queries, v.shape[-1])
        where = _where(queries, heads)
        of_q, of_k, of_v, made = (t.numpy() for t in (q, k, v, out))

        def work(part: slice) -> None:
            arguments = (of_q[part], of_k[part], of_v[part], *where, made[part])
            attend(*arguments)

        each_piece(n_masks, queries.ancestors.numel(), work)
        ctx.save_for_backward(q, k, v)
        ctx.where, ctx.n_pairs = where, queries.ancestors.numel()
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from wirework.nn.kernels.compiled.prefix_attention import attend_backward

        q, k, v = ctx.saved_tensors
        gradients = tuple(torch.empty_like(t) for t in (q, k, v))
        slopes, of_q, of_k, of_v = (t.numpy() for t in (grads[0].contiguous(), q, k, v))
        where: _Where = ctx.where
        to_q, to_k, to_v = (t.numpy() for t in gradients)

        def work(part: slice) -> None:
            inputs = (slopes[part], of_q[part], of_k[part], of_v[part])
            arguments = (*inputs, *where, to_q[part], to_k[part], to_v[part])
            attend_backward(*arguments)

        each_piece(len(q), ctx.n_pairs, work)
        return (*gradients, None, None)


def _where(queries: Queries, heads: HeadChannels) -> _Where:
    """Return the arguments of both kernels from the rows of the queries to the scale."""
    ends = queries.positions + 1
    firsts = torch.zeros_like(ends) if heads.window is None else (ends - heads.window).clamp(min=0)
    return (
        queries.rows.numpy(),
        queries.ancestors.contiguous().numpy(),
        torch.stack([firsts, ends], 1).numpy(),
        heads.pairs[:, 0].contiguous().numpy(),
        heads.pairs[:, 1].contiguous().numpy(),
        np.arange(int(heads.ends[-1, 1]) if len(heads.ends) else 0),
        heads.ends.contiguous().numpy(),
        heads.sink.numpy(),
        np.float32(heads.scale),
    )
