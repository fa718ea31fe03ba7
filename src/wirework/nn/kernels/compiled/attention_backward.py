"""Causal attention of heads of 8, 16 or 32 channels in float32: the gradients.

A vector holds 16 keys, and the probabilities are computed again for one query after another. The
gradient of the queries needs vectors of 16 queries: blocks of score gradients are transposed.
The gradient of the output is divided by the total of each query when it is read, so that
exponentials take the place of probabilities.

Shapes and terms are those of `attention.py`.
"""

import numpy as np

from wirework.nn.kernels.compiled.attention import LOG2_E
from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.head_rows import (
    Count,
    Floats,
    Strides,
    Vector,
    Vectors,
    add_products,
    load_columns,
    read_rows,
    start_of,
    store_columns,
    write_rows,
)
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import (
    columns_of_rows,
    copy_multiple,
    count,
    exp2,
    fetch_early,
    lanes_between,
    load,
    load_vectors,
    product,
    repeat,
    repeat_at,
    row_product,
    scaled,
    store,
    store_vectors,
    weighted_sum,
    zeros,
)

_TILE = count(LANES)


@compiled
def attend_backward(
    inputs: tuple[Floats, ...],
    results: tuple[Floats, ...],
    strides: Strides,
    n_heads: int,
    length: int,
    sink: Floats,
    scale: float,
    window: int,
    is_past: bool,
    channels: Count,
    group: Count,
    first: int,
    last: int,
    gradients: tuple[Floats, ...],
    to_sink: Floats,
) -> None:
    """Fill in the gradients of some heads.

    Args:
        inputs: as in `attend`.
        results: gradient of the output, output, tops and totals.
        strides: (12, 3) of the inputs, gradient and output, and `gradients`.
        n_heads, length, sink, scale, window, is_past: as in `attend`.
        channels, group, first, last: as in `attend`.
        gradients: of the inputs, to be filled; the last two if `is_past`.
        to_sink: (B H,) gradient of the sink's logit in each head, to be filled.
    """
    width, n_rows = len(channels), -(-length // LANES) * LANES
    rows = np.zeros((8, n_rows * width), np.float32)
    q, k, v, own_k, own_v, grad = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    to_q, made = rows[6], rows[7]  # to_q has a vector for each channel of each 16 queries
    shares, to_scores = np.empty(n_rows * LANES, np.float32), np.empty(n_rows * LANES, np.float32)
    total, tile = np.empty(width * LANES, np.float32), np.empty(LANES * LANES, np.float32)
    level, top = np.zeros(n_rows, np.float32), np.full(n_rows, np.float32(np.inf))
    factor, scales = repeat(np.float32(scale) * LOG2_E), repeat(np.float32(scale))
    for head in range(first, last):
        read_rows(channels, inputs[0], strides, 0, head, n_heads, q, length)
        read_rows(channels, inputs[1], strides, 1, head, n_heads, k, length)
        read_rows(channels, inputs[2], strides, 2, head, n_heads, v, length)
        top[:length] = results[2][head * length : (head + 1) * length]
        _read_gradient(channels, results, strides, head, n_heads, length, grad, level)
        to_sink[head] = _sink_gradient(sink[head % n_heads], top, level, factor)
        to_q[:] = 0
        if is_past:
            read_rows(channels, inputs[3], strides, 3, head, n_heads, own_k, length)
            read_rows(channels, inputs[4], strides, 4, head, n_heads, own_v, length)
            _own_gradients(channels, q, own_k, own_v, grad, top, level, factor, scales, to_q)
            write_rows(channels, own_k, gradients[3], strides, 10, head, n_heads, 0, length)
            write_rows(channels, own_v, gradients[4], strides, 11, head, n_heads, 0, length)
        for block in range(0, n_rows, LANES):
            last_key = min(length, block + LANES)
            end = min(length, block + LANES - 1 + window)
            _shares(load_columns(k, block, channels), q, block, end, top, factor, shares)
            _hide_unread(shares, block, min(end, block + LANES), block, window, is_past)
            _hide_unread(shares, block + max(LANES, window), end, block, window, is_past)
            values = load_columns(v, block, channels)
            _score_gradients(values, grad, block, end, level, shares, to_scores)
            store_vectors(total, 0, zeros(channels))
            add_products(shares, block, grad, block, end - block, channels, group, total, 0)
            store_columns(made, block, load_vectors(total, 0, channels))
            write_rows(channels, made, gradients[2], strides, 9, head, n_heads, block, last_key)
            store_vectors(total, 0, zeros(channels))
            add_products(to_scores, block, q, block, end - block, channels, group, total, 0)
            store_columns(made, block, scaled(load_vectors(total, 0, channels), scales))
            write_rows(channels, made, gradients[1], strides, 8, head, n_heads, block, last_key)
            for i in range(end, -(-end // LANES) * LANES):
                store(to_scores, i * LANES, repeat(np.float32(0)))
            for i in range(block, end, LANES):
                store_vectors(tile, 0, columns_of_rows(load_vectors(to_scores, i * LANES, _TILE)))
                add_products(tile, 0, k, block, LANES, channels, group, to_q, i * width)
        for block in range(0, n_rows, LANES):
            store_columns(made, block, scaled(load_vectors(to_q, block * width, channels), scales))
        write_rows(channels, made, gradients[0], strides, 7, head, n_heads, 0, length)


@compiled
def _read_gradient(
    channels: Count, results: tuple[Floats, ...], strides: Strides, head: int, n_heads: int,
    length: int, grad: Floats, level: Floats,
) -> None:  # fmt: skip
    """Copy the output's gradient, divided by the totals; `level` is its product with the output."""
    start, out_start = start_of(strides, 5, head, n_heads), start_of(strides, 6, head, n_heads)
    for i in range(length):
        place, row = start + i * strides[5, 2], out_start + i * strides[6, 2]
        part = np.float32(1) / results[3][head * length + i]
        copy_multiple(channels, results[0], place, part, grad, i * len(channels))
        level[i] = row_product(channels, grad, i * len(channels), results[1], row)
        fetch_early(results[0], place + len(channels))
        fetch_early(results[1], row + len(channels))


@compiled
def _sink_gradient(sink: float, top: Floats, level: Floats, factor: Vector) -> float:
    """Return the gradient of a sink's logit: it is a key with value zero."""
    total = repeat(np.float32(0))
    for block in range(0, len(top), LANES):
        share = exp2((repeat(sink) - load(top, block)) * factor)
        total = total - share * load(level, block)
    lanes = np.empty(LANES, np.float32)
    store(lanes, 0, total)
    return lanes.sum()


@compiled
def _own_gradients(
    channels: Count, q: Floats, own_k: Floats, own_v: Floats, grad: Floats, top: Floats,
    level: Floats, factor: Vector, scales: Vector, to_q: Floats,
) -> None:  # fmt: skip
    """Fill in the queries' gradient through their own keys; put gradients in place of own rows."""
    for block in range(0, len(top), LANES):
        queries, grads = load_columns(q, block, channels), load_columns(grad, block, channels)
        keys, values = load_columns(own_k, block, channels), load_columns(own_v, block, channels)
        share = exp2((product(queries, keys) - load(top, block)) * factor)
        to_score = share * (product(grads, values) - load(level, block))
        store_vectors(to_q, block * len(channels), scaled(keys, to_score))
        store_columns(own_k, block, scaled(queries, to_score * scales))
        store_columns(own_v, block, scaled(grads, share))


@compiled
def _shares(
    keys: Vectors, q: Floats, begin: int, end: int, top: Floats, factor: Vector, shares: Floats
) -> None:
    """Write the exponentials of 16 keys for some queries."""
    for i in range(begin, end):
        score = weighted_sum(keys, q, i * len(keys))
        store(shares, i * LANES, exp2((score - repeat_at(top, i)) * factor))


@compiled
def _hide_unread(
    shares: Floats, begin: int, end: int, block: int, window: int, is_past: bool
) -> None:
    """Set the exponentials of keys that a query does not read to 0."""
    for i in range(begin, end):
        first, last = i - block + 1 - window, i - block + 1 - is_past
        share = load(shares, i * LANES)
        store(shares, i * LANES, lanes_between(first, last, share, repeat(np.float32(0))))


@compiled
def _score_gradients(
    values: Vectors, grad: Floats, begin: int, end: int, level: Floats, shares: Floats, out: Floats
) -> None:
    """Write the gradients of the scores of 16 keys for some queries, without the scale."""
    for i in range(begin, end):
        gain = weighted_sum(values, grad, i * len(values)) - repeat_at(level, i)
        store(out, i * LANES, load(shares, i * LANES) * gain)
