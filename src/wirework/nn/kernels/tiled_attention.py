"""Causal attention of narrow heads on a CPU, about twice as fast as by its fused kernel.

That kernel multiplies head by head, by matrices of as few columns as a head has channels, which is
what is slow. Here a tile holds some rows of the scores of many heads and stays in cache; results
that have a column per channel are made transposed; and what is subtracted from all scores of a row
is one more channel of the product that makes them. Powers are of two: torch's exp2 takes a quarter
of the time of its exp.
Shapes: B sequences, H heads, T tokens, K channels of a head; N = B H heads of all sequences.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_ROWS = 32  # queries of a tile; it has all keys that the last of them sees
_TILE = 1 << 18  # scores of a tile and thread: 1 MB in float32
_WIDEST = 8  # channels of a head; at 16 both are about as fast, beyond it the kernel is faster
_SHORTEST, _FEWEST = 128, 1 << 21  # tokens, and scores of all heads: less is not worth the calls
_LOG2_E = math.log2(math.e)


def is_faster(q: Tensor) -> bool:
    """Whether this is faster than the fused kernel for heads like these, (B, H, T, K)."""
    count, heads, length, channels = q.shape
    enough = length >= _SHORTEST and count * heads * length**2 >= _FEWEST
    return channels <= _WIDEST and enough


def tiled(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return causal attention (B, H, T, K) and its log-sum-exp (B, H, T).

    Args:
        q, k, v: (B, H, T, K) float32 or float64.
        bias: (T, T) to add to the scores, -inf at all tokens after one's own; None for zeros there.
        scale: of the scores.
    """
    queries = (q * (scale * _LOG2_E)).flatten(0, 1)
    keys, values = _columns(k), _columns(v)
    found, total = torch.empty_like(values), torch.empty_like(queries[..., :1])
    highest = torch.empty_like(total)
    mask, room = _mask(q, bias), _room(q)
    for heads, rows, seen in _tiles(q):
        scores = _tile(room, heads, rows, seen)
        torch.bmm(queries[heads, rows], keys[heads, :, seen], out=scores)
        _hide(scores, mask, rows)
        highest[heads, rows] = top = scores.amax(-1, keepdim=True)
        scores.sub_(top).exp2_()
        total[heads, rows] = scores.sum(-1, keepdim=True)
        found[heads, :, rows] = torch.bmm(values[heads, :, seen], scores.transpose(1, 2))
    out = found.div_(total.transpose(1, 2)).view(*q.shape[:2], *found.shape[1:]).transpose(2, 3)
    return out, highest.add_(total.log2_()).div_(_LOG2_E).view(q.shape[:3])


def tiled_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, lse: Tensor, bias: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v given what came out and its log-sum-exp.

    Both may be those of a softmax over more than these keys: then it is their share of it.
    """
    level = torch.linalg.vecdot(grad, out)
    one = torch.ones_like(level)
    queries = _with(q * (scale * _LOG2_E), lse * -_LOG2_E).flatten(0, 1)
    gains = _with(grad, -level).flatten(0, 1)
    keys, values = _columns(_with(k, one)), _columns(_with(v, one))
    query_columns, grad_columns = _columns(q), _columns(grad)
    to_q = torch.empty_like(query_columns)
    to_k, to_v = torch.zeros_like(to_q), torch.zeros_like(to_q)
    mask, room, other_room = _mask(q, bias), _room(q), _room(q)
    for heads, rows, seen in _tiles(q):
        shares, to_scores = (_tile(r, heads, rows, seen) for r in (room, other_room))
        torch.bmm(queries[heads, rows], keys[heads, :, seen], out=shares)
        _hide(shares, mask, rows)
        shares.exp2_()
        to_v[heads, :, seen] += torch.bmm(grad_columns[heads, :, rows], shares)
        torch.bmm(gains[heads, rows], values[heads, :, seen], out=to_scores)
        to_scores.mul_(shares)
        own = keys[heads, :-1, seen]
        to_q[heads, :, rows] = torch.bmm(own, to_scores.transpose(1, 2))
        to_k[heads, :, seen] += torch.bmm(query_columns[heads, :, rows], to_scores)
    found = (to_q.mul_(scale), to_k.mul_(scale), to_v)
    to_q, to_k, to_v = (t.view(*q.shape[:2], *t.shape[1:]).transpose(2, 3) for t in found)
    return to_q, to_k, to_v


def _tiles(q: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield which heads, of them which queries, and which keys these see: up to the last's own."""
    heads, length, together = q.shape[0] * q.shape[1], q.shape[2], _together(q)
    for first in range(0, heads, together):
        for start in range(0, length, _ROWS):
            end = min(start + _ROWS, length)
            yield slice(first, min(first + together, heads)), slice(start, end), slice(end)


def _together(q: Tensor) -> int:
    """Return how many heads' rows a tile holds."""
    return max(1, torch.get_num_threads() * _TILE // (_ROWS * q.shape[2]))


def _room(q: Tensor) -> Tensor:
    """Return memory for a tile."""
    heads = min(_together(q), q.shape[0] * q.shape[1])
    return q.new_empty(heads * _ROWS * q.shape[2])


def _tile(room: Tensor, heads: slice, rows: slice, seen: slice) -> Tensor:
    shape = (heads.stop - heads.start, rows.stop - rows.start, seen.stop)
    return room[: math.prod(shape)].view(shape)


def _mask(q: Tensor, bias: Tensor | None) -> Tensor:
    """Return a bias in powers of two, (T, T), or which of a tile's own keys are later ones."""
    if bias is not None:
        return bias * _LOG2_E
    return torch.ones(_ROWS, _ROWS, dtype=torch.bool, device=q.device).triu_(1)


def _hide(scores: Tensor, mask: Tensor, rows: slice) -> None:
    """Add a bias, or hide later tokens, whatever their scores are."""
    if mask.dtype == torch.bool:
        count = rows.stop - rows.start
        scores[..., rows].masked_fill_(mask[:count, :count], -torch.inf)
    else:
        scores += mask[rows, : rows.stop]


def _columns(x: Tensor) -> Tensor:
    """Return (B, H, T, K) as (N, K, T)."""
    return x.transpose(2, 3).flatten(0, 1).contiguous()


def _with(x: Tensor, channel: Tensor) -> Tensor:
    """Return (B, H, T, K + 1): (B, H, T) behind the channels."""
    return torch.cat([x, channel.unsqueeze(-1)], -1)
