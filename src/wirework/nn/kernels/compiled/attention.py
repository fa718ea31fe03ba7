"""Causal attention of heads of 8, 16 or 32 channels in float32: the forward pass.

One head of one sequence at a time is copied to memory that stays in cache. A vector holds 16
queries: their scores with one key after another, the exponentials and the sums of values need no
sum over lanes.

A score is the product of a query and a key without the scale; the logit of the sink is divided by
the scale. Probabilities are powers of two of the distance to the query's largest score, its `top`,
divided by their sum, its `total`. Both are kept for the backward pass, which so loses no digits of
large scores.

With `is_past`, a query reads strictly earlier keys, and a key and a value of its own.

Shapes: B sequences, H heads, T tokens, K channels of a head. `head_rows.py` defines strides.
"""

import numpy as np

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
    store_columns,
    write_rows,
)
from wirework.nn.kernels.compiled.vector_type import LANES
from wirework.nn.kernels.compiled.vectors import (
    exp2,
    lanes_between,
    load,
    load_vectors,
    maximum,
    product,
    repeat,
    scaled,
    store,
    store_vectors,
    weighted_sum,
    zeros,
)

LOG2_E = np.float32(1.4426950408889634)


@compiled
def attend(
    inputs: tuple[Floats, ...],
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
    out: Floats,
    tops: Floats,
    totals: Floats,
) -> None:
    """Fill in the output of some heads, and what the backward pass needs.

    Args:
        inputs: queries, keys, values, own keys and own values; the last two are read if `is_past`.
        strides: (6, 3) of the inputs and `out`.
        n_heads: H.
        length: T.
        sink: (H,) logits divided by the scale; -inf for none.
        scale: factor on the scores, above 0.
        window: number of positions that a query reads, its own included; over T + 16 for all.
        is_past: whether own keys and values take the place of those at the query's position.
        channels: `count(K)`; K is 8, 16 or 32.
        group: `count` of the channels that are summed at once, in registers.
        first, last: number of the first head of all sequences, and of the one after the last.
        out: output, to be filled.
        tops, totals: (B H T,) largest scores and sums of exponentials, to be filled.
    """
    n_rows = -(-length // LANES) * LANES
    rows = np.zeros((6, n_rows * len(channels)), np.float32)
    q, k, v, own_k, own_v, made = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    shares = np.empty(n_rows * LANES, np.float32)
    values = np.empty(len(channels) * LANES, np.float32)
    top_row, total_row = np.empty(n_rows, np.float32), np.empty(n_rows, np.float32)
    factor = repeat(np.float32(scale) * LOG2_E)
    for head in range(first, last):
        read_rows(channels, inputs[0], strides, 0, head, n_heads, q, length)
        read_rows(channels, inputs[1], strides, 1, head, n_heads, k, length)
        read_rows(channels, inputs[2], strides, 2, head, n_heads, v, length)
        if is_past:
            read_rows(channels, inputs[3], strides, 3, head, n_heads, own_k, length)
            read_rows(channels, inputs[4], strides, 4, head, n_heads, own_v, length)
        sink_score = repeat(sink[head % n_heads])
        for block in range(0, n_rows, LANES):
            queries = load_columns(q, block, channels)
            top = own_score = sink_score
            if is_past:
                own_score = product(queries, load_columns(own_k, block, channels))
                top = maximum(top, own_score)
            begin = max(0, block - window + 1)
            inside = max(begin, min(block, block + LANES - window))  # read by all 16 queries
            end = block + LANES
            top = _edge_scores(queries, k, begin, inside, block, window, is_past, shares, top)
            top = _scores(queries, k, inside, block, shares, top)
            top = _edge_scores(queries, k, block, end, block, window, is_past, shares, top)
            total = exp2((sink_score - top) * factor)
            store_vectors(values, 0, zeros(channels))
            if is_past:
                own_share = exp2((own_score - top) * factor)
                total = total + own_share
                store_vectors(values, 0, scaled(load_columns(own_v, block, channels), own_share))
            total = _exponentials(shares, begin, end, top, factor, total)
            add_products(shares, begin, v, begin, end - begin, channels, group, values, 0)
            parts = repeat(np.float32(1)) / total
            store_columns(made, block, scaled(load_vectors(values, 0, channels), parts))
            store(top_row, block, top)
            store(total_row, block, total)
        write_rows(channels, made, out, strides, 5, head, n_heads, 0, length)
        tops[head * length : (head + 1) * length] = top_row[:length]
        totals[head * length : (head + 1) * length] = total_row[:length]


@compiled
def _scores(
    queries: Vectors, k: Floats, begin: int, end: int, scores: Floats, top: Vector
) -> Vector:
    """Write the scores of 16 queries with some keys; return the largest of them and `top`."""
    for j in range(begin, end):
        score = weighted_sum(queries, k, j * len(queries))
        store(scores, j * LANES, score)
        top = maximum(score, top)
    return top


@compiled
def _edge_scores(
    queries: Vectors, k: Floats, begin: int, end: int, block: int, window: int, is_past: bool,
    scores: Floats, top: Vector,
) -> Vector:  # fmt: skip
    """Write scores like `_scores`, with -inf for queries that do not read the key."""
    for j in range(begin, end):
        score = weighted_sum(queries, k, j * len(queries))
        first, last = j - block + is_past, j - block + window
        score = lanes_between(first, last, score, repeat(np.float32(-np.inf)))
        store(scores, j * LANES, score)
        top = maximum(score, top)
    return top


@compiled
def _exponentials(
    scores: Floats, begin: int, end: int, top: Vector, factor: Vector, total: Vector
) -> Vector:
    """Replace scores by their exponentials; return `total` plus their sum."""
    for j in range(begin, end):
        share = exp2((load(scores, j * LANES) - top) * factor)
        store(scores, j * LANES, share)
        total = total + share
    return total
