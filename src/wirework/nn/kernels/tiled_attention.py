"""Causal attention of narrow heads on a CPU, about twice as fast as torch's fused kernel.

The fused kernel multiplies head by head, with matrices that have only as many columns as a head has
channels; such products are slow. Here a tile holds some rows of the scores of many heads and stays
in cache. Results with a column for each channel are computed transposed. A number to subtract from
all scores of a row is one more channel of the product that gives the scores. Exponentials are
powers of two: torch's exp2 takes a quarter of the time of its exp.
Shapes: B sequences, H heads, T tokens, K channels of a head; N = B H heads of all sequences.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS = 32  # queries of a tile; it has all keys that the last of them attends to
_TILE = 1 << 18  # scores of a tile for each thread: 1 MB in float32
_MAX_CHANNELS = 8  # of a head; at 16 both are equally fast, above that the fused kernel is faster
_MIN_TOKENS, _MIN_SCORES = 128, 1 << 21  # of all heads; below them the calls cost too much
_LOG2_E = math.log2(math.e)


def is_faster(q: Tensor) -> bool:
    """Return whether `tiled` is faster than the fused kernel for queries (B, H, T, K)."""
    count, heads, length, channels = q.shape
    enough = length >= _MIN_TOKENS and count * heads * length**2 >= _MIN_SCORES
    return channels <= _MAX_CHANNELS and enough


def tiled(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return causal attention (B, H, T, K) and its log-sum-exp (B, H, T).

    Args:
        q, k, v: (B, H, T, K) float32 or float64.
        bias: (T, T) to add to the scores, -inf at all later tokens; None for causal attention.
        scale: factor on the scores.
    """
    queries = (q * (scale * _LOG2_E)).flatten(0, 1)
    keys, values = _transposed(k), _transposed(v)
    weighted_values, total = torch.empty_like(values), torch.empty_like(queries[..., :1])
    highest = torch.empty_like(total)
    mask, buffer = _mask(q, bias), _buffer(q)
    for heads, rows, keys_seen in _tiles(q):
        scores = _tile(buffer, heads, rows, keys_seen)
        torch.bmm(queries[heads, rows], keys[heads, :, keys_seen], out=scores)
        _apply_mask(scores, mask, rows)
        highest[heads, rows] = top = scores.amax(-1, keepdim=True)
        scores.sub_(top).exp2_()
        total[heads, rows] = scores.sum(-1, keepdim=True)
        weighted_values[heads, :, rows] = torch.bmm(
            values[heads, :, keys_seen], scores.transpose(1, 2)
        )
    out = (
        weighted_values.div_(total.transpose(1, 2))
        .view(*q.shape[:2], *weighted_values.shape[1:])
        .transpose(2, 3)
    )
    return out, highest.add_(total.log2_()).div_(_LOG2_E).view(q.shape[:3])


def tiled_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, lse: Tensor, bias: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v from the output and its log-sum-exp.

    Output and log-sum-exp may be those of a softmax over more keys than `k`; the result is then the
    part of the gradient that belongs to these keys.
    """
    level = torch.linalg.vecdot(grad, out)
    ones = torch.ones_like(level)
    queries = _with_channel(q * (scale * _LOG2_E), lse * -_LOG2_E).flatten(0, 1)
    gains = _with_channel(grad, -level).flatten(0, 1)
    keys, values = _transposed(_with_channel(k, ones)), _transposed(_with_channel(v, ones))
    query_columns, grad_columns = _transposed(q), _transposed(grad)
    to_q = torch.empty_like(query_columns)
    to_k, to_v = torch.zeros_like(to_q), torch.zeros_like(to_q)
    mask, buffer, other_buffer = _mask(q, bias), _buffer(q), _buffer(q)
    for heads, rows, keys_seen in _tiles(q):
        shares, to_scores = (_tile(r, heads, rows, keys_seen) for r in (buffer, other_buffer))
        torch.bmm(queries[heads, rows], keys[heads, :, keys_seen], out=shares)
        _apply_mask(shares, mask, rows)
        shares.exp2_()
        to_v[heads, :, keys_seen] += torch.bmm(grad_columns[heads, :, rows], shares)
        torch.bmm(gains[heads, rows], values[heads, :, keys_seen], out=to_scores)
        to_scores.mul_(shares)
        own = keys[heads, :-1, keys_seen]
        to_q[heads, :, rows] = torch.bmm(own, to_scores.transpose(1, 2))
        to_k[heads, :, keys_seen] += torch.bmm(query_columns[heads, :, rows], to_scores)
    gradients = (to_q.mul_(scale), to_k.mul_(scale), to_v)
    to_q, to_k, to_v = (t.view(*q.shape[:2], *t.shape[1:]).transpose(2, 3) for t in gradients)
    return to_q, to_k, to_v


def _tiles(q: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield heads, queries and keys of each tile; the keys reach to the last query's own."""
    heads, length, n_together = q.shape[0] * q.shape[1], q.shape[2], _heads_per_tile(q)
    for first in range(0, heads, n_together):
        for start in range(0, length, _ROWS):
            end = min(start + _ROWS, length)
            yield slice(first, min(first + n_together, heads)), slice(start, end), slice(end)


def _heads_per_tile(q: Tensor) -> int:
    """Return the number of heads in a tile."""
    return max(1, torch.get_num_threads() * _TILE // (_ROWS * q.shape[2]))


def _buffer(q: Tensor) -> Tensor:
    """Return uninitialised memory for a tile."""
    heads = min(_heads_per_tile(q), q.shape[0] * q.shape[1])
    return q.new_empty(heads * _ROWS * q.shape[2])


def _tile(buffer: Tensor, heads: slice, rows: slice, keys_seen: slice) -> Tensor:
    shape = (heads.stop - heads.start, rows.stop - rows.start, keys_seen.stop)
    return buffer[: math.prod(shape)].view(shape)


def _mask(q: Tensor, bias: Tensor | None) -> Tensor:
    """Return the bias in powers of two, (T, T), or the later keys within a tile's own rows."""
    if bias is not None:
        return bias * _LOG2_E
    return torch.ones(_ROWS, _ROWS, dtype=torch.bool, device=q.device).triu_(1)


def _apply_mask(scores: Tensor, mask: Tensor, rows: slice) -> None:
    """Add a bias, or set the scores of later tokens to -inf."""
    if mask.dtype == torch.bool:
        count = rows.stop - rows.start
        scores[..., rows].masked_fill_(mask[:count, :count], -torch.inf)
    else:
        scores += mask[rows, : rows.stop]


def _transposed(x: Tensor) -> Tensor:
    """Return (B, H, T, K) as (N, K, T)."""
    return x.transpose(2, 3).flatten(0, 1).contiguous()


def _with_channel(x: Tensor, channel: Tensor) -> Tensor:
    """Return (B, H, T, K + 1): `x` with (B, H, T) as a further channel."""
    return torch.cat([x, channel.unsqueeze(-1)], -1)
