"""Cross-entropy of logits that are the product of a state and a sparse unembedding.

The logits of a tile of tokens are computed with the tokens of an entry of the vocabulary adjacent,
and stay in cache until they have become loss and gradient. `tiles.py` explains tiles.

Shapes: N tokens, D width, V vocabulary, E nonzero entries, P tokens of a piece.
"""

import numpy as np
from numpy.typing import NDArray

from wirework.nn.kernels.compiled.compiler import compiled, compiled_with_any_order
from wirework.nn.kernels.compiled.sparse_products import Floats, Ints
from wirework.nn.kernels.compiled.tiles import TILE, VECTORS, read_tile, write_tile
from wirework.nn.kernels.compiled.vectors import (
    add_multiple,
    load_vectors,
    product_of_all,
    repeat_vectors,
    store_vectors,
)

Doubles = NDArray[np.float64]
Bits = NDArray[np.int32]

_BLOCK = 64  # entries of the vocabulary whose exponentials are summed apart, for precision
_SIDE = 8  # side of the blocks in which rows of the bigram table are transposed
_LOG2_E = np.float32(1.44269504)
_LOWEST = np.float32(-126)  # of an exponent of 2 that a normal float32 has
# Polynomial of 2**r for r from -1/2 to 1/2, lowest power first: Taylor's, relative error 1e-7.
_C = tuple(np.float32(np.log(2) ** i / f) for i, f in enumerate((1, 1, 2, 6, 24, 120, 720, 5040)))


@compiled
def loss_of_tokens(
    state: Floats,
    rows: tuple[Ints, Ints, Floats],
    bias: Floats,
    bigram: Floats,
    tokens: Ints,
    targets: Ints,
    scale: float,
    losses: Doubles,
    is_graded: bool,
    slopes: Floats,
    column: int,
    to_state: Floats,
    trained: tuple[Ints, Ints],
    to_entries: Floats,
    to_bias: Floats,
) -> None:
    """Fill in the losses of tokens, and the gradients of their sum.

    A result that is not wanted is passed as an empty array.

    Args:
        state: (N, D).
        rows: starts (V + 1,), columns (E,) and values (E,) of the unembedding's compressed rows.
        bias: (V,) added to the logits.
        bigram: (V, V) added to the logits by current token, or (0, 0).
        tokens: (N,) current tokens; not read without `bigram`.
        targets: (N,) next tokens.
        scale: factor of all gradients.
        losses: (N,) cross-entropy of each token in nats, to be filled.
        is_graded: whether a gradient is wanted.
        slopes: (V, P) gradients of the logits, filled from a column on, or (0, 0).
        column: that column.
        to_state: (N, D) gradient, to be filled.
        trained: starts (V + 1,) and columns of the entries whose gradient is wanted.
        to_entries: gradient of these entries, increased.
        to_bias: (V,) gradient, increased.
    """
    starts, columns, values = rows
    n_vocabulary, width = len(starts) - 1, state.shape[1]
    tile = np.empty((width, TILE), np.float32)
    logits = np.empty((n_vocabulary, TILE), np.float32)
    input_gradient = np.empty((width, TILE), np.float32)
    largest, total = np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    for first in range(0, len(state), TILE):
        n = min(TILE, len(state) - first)
        read_tile(state, first, tile)
        for v in range(n_vocabulary):
            total_logits = repeat_vectors(bias[v], VECTORS)
            for entry in range(starts[v], starts[v + 1]):
                total_logits = add_multiple(
                    total_logits, values[entry], tile, TILE * columns[entry]
                )
            store_vectors(logits, TILE * v, total_logits)
        if bigram.size:
            _add_rows(bigram, tokens, first, n, logits)
        _find_largest(logits, largest)
        for t in range(n):
            losses[first + t] = np.float64(largest[t]) - logits[targets[first + t], t]
        _exponentiate(logits, largest, total)
        for t in range(n):
            losses[first + t] += np.log(np.float64(total[t]))
        if not is_graded:
            continue
        _scale_columns(logits, total, np.float32(scale), n)
        for t in range(n):
            logits[targets[first + t], t] -= np.float32(scale)
        if slopes.size:
            for v in range(n_vocabulary):
                for t in range(n):
                    slopes[v, column + first + t] = logits[v, t]
        if to_state.size:
            _spread(logits, starts, columns, values, input_gradient)
            write_tile(input_gradient, width, n, to_state, first, 0)
        if to_entries.size:
            _add_entry_gradients(logits, tile, trained[0], trained[1], to_entries)
        if to_bias.size:
            _add_sums(logits, to_bias)


@compiled
def _add_rows(bigram: Floats, tokens: Ints, first: int, n: int, logits: Floats) -> None:
    """Add a row of the bigram table to the logits of each token, in blocks that stay in cache."""
    width = len(logits)
    whole_n, whole_width = n - n % _SIDE, width - width % _SIDE
    for token in range(0, whole_n, _SIDE):
        for v in range(0, whole_width, _SIDE):
            for j in range(_SIDE):
                row = tokens[first + token + j]
                for i in range(_SIDE):
                    logits[v + i, token + j] += bigram[row, v + i]
    for token in range(n):
        row = tokens[first + token]
        for v in range(whole_width if token < whole_n else 0, width):
            logits[v, token] += bigram[row, v]


@compiled
def _find_largest(logits: Floats, largest: Floats) -> None:
    """Fill in the largest logit of each token; NaN if there is one."""
    largest[:] = logits[0]
    for v in range(1, len(logits)):
        for t in range(TILE):
            x = logits[v, t]
            # A comparison with NaN is false: it replaces any number, and is never replaced.
            largest[t] = largest[t] if x <= largest[t] or largest[t] != largest[t] else x


@compiled
def _exponentiate(logits: Floats, largest: Floats, total: Floats) -> None:
    """Replace logits by exponentials of their distance to the largest; fill in their sums."""
    powers = np.empty(TILE, np.int32)
    as_floats = powers.view(np.float32)
    part = np.empty(TILE, np.float32)
    total[:] = 0
    for begin in range(0, len(logits), _BLOCK):
        part[:] = 0
        for v in range(begin, min(begin + _BLOCK, len(logits))):
            row = logits[v]
            for t in range(TILE):
                x = (row[t] - largest[t]) * _LOG2_E
                x = _LOWEST if x < _LOWEST else x  # NaN stays
                whole = np.floor(x + np.float32(0.5))
                r = x - whole
                powers[t] = (np.int32(whole) + 127) << 23
                row[t] = _C[0] + r * (
                    _C[1]
                    + r
                    * (_C[2] + r * (_C[3] + r * (_C[4] + r * (_C[5] + r * (_C[6] + r * _C[7])))))
                )
            for t in range(TILE):
                row[t] = row[t] * as_floats[t]
                part[t] += row[t]
        for t in range(TILE):
            total[t] += part[t]


@compiled
def _scale_columns(logits: Floats, total: Floats, scale: float, n: int) -> None:
    """Divide exponentials by their sums, times a scale; set those of absent tokens to 0."""
    factor = np.empty(TILE, np.float32)
    for t in range(TILE):
        factor[t] = scale / total[t] if t < n else 0
    for v in range(len(logits)):
        for t in range(TILE):
            logits[v, t] *= factor[t]


@compiled
def _spread(slopes: Floats, starts: Ints, columns: Ints, values: Floats, out: Floats) -> None:
    """Fill `out`, (D, TILE), with the gradient of the state of a tile."""
    out[:] = 0
    for v in range(len(slopes)):
        for entry in range(starts[v], starts[v + 1]):
            place = TILE * columns[entry]
            total = load_vectors(out, place, VECTORS)
            store_vectors(out, place, add_multiple(total, values[entry], slopes, TILE * v))


@compiled
def _add_entry_gradients(
    slopes: Floats, tile: Floats, starts: Ints, columns: Ints, out: Floats
) -> None:
    for v in range(len(slopes)):
        slope = load_vectors(slopes, TILE * v, VECTORS)
        for entry in range(starts[v], starts[v + 1]):
            out[entry] += product_of_all(slope, tile, TILE * columns[entry])


@compiled_with_any_order
def _add_sums(slopes: Floats, out: Floats) -> None:
    """Add the sum over the tokens of a tile."""
    for v in range(len(slopes)):
        total = np.float32(0)
        for t in range(TILE):
            total += slopes[v, t]
        out[v] += total
