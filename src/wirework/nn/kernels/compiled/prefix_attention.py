"""Causal attention of distinct prefixes over their ancestors, for the channels that are not zero.

Keys and values of a query's ancestors are copied channel by channel into a *path*, so that one
instruction works on 16 positions. Consecutive queries share most ancestors: only positions that
changed are copied, and gradients are summed in the path until another ancestor takes a position.

Shapes: R masks, U queries, Q rows of q, S rows of k and v, T tokens, H heads, P pairs of a query
and a key channel, V value channels.
"""

import math

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import (
    count,
    exp2,
    load,
    repeat,
    row_product,
    store,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_WIDTH = count(LANES)
_LOG2_E = np.float32(math.log2(math.e))


@compiled
def attend(
    q: Floats, k: Floats, v: Floats, query_rows: Ints, ancestors: Ints, spans: Ints,
    in_q: Ints, in_k: Ints, in_v: Ints, ends: Ints, sink: Floats, scale: np.float32, out: Floats,
) -> None:  # fmt: skip
    """Fill the outputs of attention of each query over its ancestors; all inputs are finite.

    Args:
        q: (R, Q, any) queries.
        k: (R, S, any) keys.
        v: (R, S, V) values, the channels of a head side by side.
        query_rows: (U,) row of each query.
        ancestors: (U, T) row of the key and value at each position of a query's prefix.
        spans: (U, 2) first position that a query attends to, and the one after the last.
        in_q, in_k: (P,) channels of q and k that are multiplied, those of a head side by side.
        in_v: (V,) all channels of v.
        ends: (H, 2) the pair and the value channel after the last ones of each head.
        sink: (H,) sink logits, -inf for none.
        scale: factor on the scores.
        out: (R, U, V) to be filled.
    """
    length = _in_whole_vectors(ancestors.shape[1])
    keys, values = (
        np.zeros(len(in_k) * length, np.float32),
        np.zeros(len(in_v) * length, np.float32),
    )
    path = np.empty(length, np.int64)
    share = np.empty(length, np.float32)
    for mask in range(len(q)):
        path[:] = -1
        for i in range(len(query_rows)):
            first, end = spans[i, 0], spans[i, 1]
            start = _first_change(path, ancestors[i], end)
            _copy(k[mask], in_k, path, start, end, keys)
            _copy(v[mask], in_v, path, start, end, values)
            first_pair, first_value = 0, 0
            for head in range(len(ends)):
                end_pair, end_value = ends[head, 0], ends[head, 1]
                _attend_by_head(
                    q[mask, query_rows[i]], in_q, first_pair, end_pair, keys, first, end,
                    sink[head], scale, share,
                )  # fmt: skip
                for value in range(first_value, end_value):
                    out[mask, i, value] = _product(share, values, value * length, first, end)
                first_pair, first_value = end_pair, end_value


@compiled
def attend_backward(
    grad: Floats, q: Floats, k: Floats, v: Floats, query_rows: Ints, ancestors: Ints, spans: Ints,
    in_q: Ints, in_k: Ints, in_v: Ints, ends: Ints, sink: Floats, scale: np.float32,
    to_q: Floats, to_k: Floats, to_v: Floats,
) -> None:  # fmt: skip
    """Fill the gradients of `attend` with respect to queries, keys and values.

    Args:
        grad: (R, U, V) gradient of the outputs.
        q, k, v, query_rows, ancestors, spans, in_q, in_k, in_v, ends, sink, scale: as in `attend`.
        to_q, to_k, to_v: to be filled, of the shapes of q, k and v.
    """
    length = _in_whole_vectors(ancestors.shape[1])
    keys, values = (
        np.zeros(len(in_k) * length, np.float32),
        np.zeros(len(in_v) * length, np.float32),
    )
    to_keys, to_values = np.zeros_like(keys), np.zeros_like(values)
    path = np.empty(length, np.int64)
    share, to_share = np.empty(length, np.float32), np.empty(length, np.float32)
    to_q[:] = 0
    to_k[:] = 0
    to_v[:] = 0
    for mask in range(len(q)):
        path[:] = -1
        last = 0
        for i in range(len(query_rows)):
            first, end, slopes = spans[i, 0], spans[i, 1], grad[mask, i]
            query, to_query = q[mask, query_rows[i]], to_q[mask, query_rows[i]]
            start = _first_difference(path, ancestors[i], end)
            _flush(to_keys, in_k, path, start, last, to_k[mask])
            _flush(to_values, in_v, path, start, last, to_v[mask])
            start, last = _first_change(path, ancestors[i], end), end
            _copy(k[mask], in_k, path, start, end, keys)
            _copy(v[mask], in_v, path, start, end, values)
            first_pair, first_value = 0, 0
            for head in range(len(ends)):
                end_pair, end_value = ends[head, 0], ends[head, 1]
                _attend_by_head(
                    query, in_q, first_pair, end_pair, keys, first, end, sink[head], scale, share
                )
                for value in range(first_value, end_value):
                    _add_multiple(share, slopes[value], 0, to_values, value * length, first, end)
                if end_pair > first_pair:
                    to_share[:] = 0
                    for value in range(first_value, end_value):
                        _add_multiple(
                            values, slopes[value], value * length, to_share, 0, first, end
                        )
                    _pass_to_scores(share, to_share, first, end, scale)
                for pair in range(first_pair, end_pair):
                    channel = in_q[pair]
                    to_query[channel] += _product(to_share, keys, pair * length, first, end)
                    _add_multiple(to_share, query[channel], 0, to_keys, pair * length, first, end)
                first_pair, first_value = end_pair, end_value
        _flush(to_keys, in_k, path, 0, last, to_k[mask])
        _flush(to_values, in_v, path, 0, last, to_v[mask])


@compiled
def _in_whole_vectors(n: int) -> int:
    return (n + LANES - 1) // LANES * LANES


@compiled
def _first_difference(path: Ints, ancestors: Ints, end: int) -> int:
    """Return the first position whose ancestor is not the one in the path."""
    for t in range(end):
        if path[t] != ancestors[t]:
            return t
    return end


@compiled
def _first_change(path: Ints, ancestors: Ints, end: int) -> int:
    """Put ancestors into the path; return the first position that changed."""
    start = _first_difference(path, ancestors, end)
    path[start:end] = ancestors[start:end]
    return start


@compiled
def _copy(x: Floats, channels: Ints, path: Ints, start: int, end: int, copied: Floats) -> None:
    """Copy channels of (S, any) at positions of the path into (channels, T)."""
    for t in range(start, end):
        row = x[path[t]]
        for i in range(len(channels)):
            copied[i * len(path) + t] = row[channels[i]]


@compiled
def _flush(sums: Floats, channels: Ints, path: Ints, start: int, end: int, x: Floats) -> None:
    """Add sums (channels, T) at positions of the path to (S, any), and set them to zero."""
    for t in range(start, end):
        row = x[path[t]]
        for i in range(len(channels)):
            row[channels[i]] += sums[i * len(path) + t]
            sums[i * len(path) + t] = 0


@compiled
def _attend_by_head(
    query: Floats, in_q: Ints, first_pair: int, end_pair: int, keys: Floats, first: int, end: int,
    sink: np.float32, scale: np.float32, share: Floats,
) -> None:  # fmt: skip
    """Fill the share of each position, 0 outside the span."""
    share[:] = 0
    if first_pair == end_pair:  # all scores are 0
        share[first:end] = 1 / (np.float32(end - first) + math.exp(sink))
        return
    for pair in range(first_pair, end_pair):
        _add_multiple(keys, query[in_q[pair]] * scale, pair * len(share), share, 0, first, end)
    top = sink
    for t in range(first, end):
        top = max(top, share[t])
    for t in range(first // LANES * LANES, end, LANES):
        store(share, t, exp2((load(share, t) - repeat(top)) * repeat(_LOG2_E)))
    share[:first] = 0
    share[end:] = 0
    total = np.float32(math.exp(sink - top))
    for t in range(first, end):
        total += share[t]
    for t in range(first // LANES * LANES, end, LANES):
        store(share, t, load(share, t) * repeat(np.float32(1) / total))


@compiled
def _add_multiple(
    x: Floats, factor: np.float32, at_x: int, sums: Floats, at_sums: int, first: int, end: int
) -> None:
    """Add a multiple of some positions of a channel to those of another, in whole vectors."""
    for t in range(first // LANES * LANES, end, LANES):
        store(sums, at_sums + t, load(sums, at_sums + t) + load(x, at_x + t) * repeat(factor))


@compiled
def _product(share: Floats, x: Floats, at_x: int, first: int, end: int) -> np.float32:
    """Return the sum over a span of shares, which are 0 outside it, times a channel."""
    total = np.float32(0)
    for t in range(first // LANES * LANES, end, LANES):
        total += row_product(_WIDTH, share, t, x, at_x + t)
    return total


@compiled
def _pass_to_scores(share: Floats, slopes: Floats, first: int, end: int, scale: np.float32) -> None:
    """Turn the gradient of a softmax over a span into that of its scores before the factor."""
    mean = _product(share, slopes, 0, first, end)
    for t in range(first // LANES * LANES, end, LANES):
        deviations = load(slopes, t) - repeat(mean)
        store(slopes, t, load(share, t) * deviations * repeat(scale))
