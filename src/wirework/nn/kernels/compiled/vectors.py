"""Operations on vectors of 16 float32 in compiled kernels, for loops that numba does not vectorise.

An operation is called like a function in a compiled kernel and becomes a few instructions of the
processor. A tuple of vectors stays in registers. Lengths that the compiler must know are passed as
`count(n)`. Sums are in the order written here, on every processor.
"""

import operator
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import overload

from wirework.nn.kernels.compiled.vector_type import (
    FLOAT,
    FLOATS,
    INT,
    INTS,
    LANES,
    Memory,
    Vector,
    as_many,
    like_first,
    nothing,
    one_vector,
    operation,
)

_DEGREE = 6
_ROUNDING = 1.5 * 2**23  # a float32 plus this number is rounded to an integer, in its low bits
_LOWEST_POWER = -127.0  # its bits are those of 0


def count(n: int) -> tuple[int, ...]:
    """Return a tuple of n numbers: the compiler knows the length of a tuple."""
    return (0,) * n


@operation(one_vector)
def load(_builder, array, index):
    """Return the 16 numbers of an array from an index."""
    return array.load(index)


@operation(nothing)
def store(_builder, array, index, vector):
    """Write 16 numbers of an array from an index."""
    array.store(vector, index)


@operation(one_vector)
def repeat(builder, number):
    """Return a float32 in all lanes."""
    return _repeat(builder, number)


@operation(one_vector)
def repeat_at(builder, array, index):
    """Return a number of an array in all lanes."""
    return _repeat(builder, array.load(index, kind=FLOAT))


@operation(one_vector)
def maximum(builder, a, b):
    """Return the larger number of each lane; `b` where either is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@operation(one_vector)
def lanes_between(builder, first, last, vector, other):
    """Return `vector` in the lanes from `first` up to, not including, `last`, else `other`."""
    lane = ir.Constant(INTS, list(range(LANES)))
    low, high = (_repeat(builder, builder.trunc(end, INT)) for end in (first, last))
    after, before = (builder.icmp_signed(">=", lane, low), builder.icmp_signed("<", lane, high))
    return builder.select(builder.and_(after, before), vector, other)


def _coefficients() -> list[float]:
    """Return the polynomial of 2**x, lowest power first, of least relative error up to 1/2."""
    x = np.cos(np.pi * (np.arange(1000) + 0.5) / 1000) / 2
    powers = x[:, None] ** np.arange(1, _DEGREE + 1) / 2.0 ** x[:, None]
    fitted = np.linalg.lstsq(powers, 1 - 2.0**-x, rcond=None)[0]
    return [1.0, *(float(np.float32(number)) for number in fitted)]


_POLYNOMIAL = _coefficients()


@operation(one_vector)
def exp2(builder, x):
    """Return 2**x for x up to 127, with a relative error below 2e-7; 0 up to -127.

    2**x is 2**n, with n the nearest integer, times a polynomial of the rest; n is added to the
    exponent's bits.
    """
    lowest = _constant(_LOWEST_POWER)
    x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)  # NaN stays
    shifted = builder.fadd(x, _constant(_ROUNDING))
    rest = builder.fsub(x, builder.fsub(shifted, _constant(_ROUNDING)))
    power = _constant(_POLYNOMIAL[-1])
    for coefficient in _POLYNOMIAL[-2::-1]:
        power = _multiply_add(builder, power, rest, _constant(coefficient))
    exponent = builder.shl(builder.bitcast(shifted, INTS), ir.Constant(INTS, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(power, INTS), exponent), FLOATS)


@operation(as_many)
def zeros(_builder, n):
    """Return n vectors of 0."""
    return [_constant(0.0)] * n


@operation(as_many)
def repeat_vectors(builder, number, n):
    """Return n vectors with a float32 in all lanes."""
    return [_repeat(builder, number)] * n


@operation(as_many)
def load_vectors(_builder, array, index, n):
    """Return n vectors that follow each other in an array."""
    return [array.load(index, LANES * i) for i in range(n)]


@operation(nothing)
def store_vectors(_builder, array, index, vectors):
    """Write vectors one after another into an array."""
    for i, vector in enumerate(vectors):
        array.store(vector, index, LANES * i)


@operation(like_first)
def columns_of_rows(builder, vectors):
    """Return n columns of a (16, n) matrix as vectors, from its rows one after another."""
    return _rotated(builder, vectors, (LANES - 1).bit_length())


@operation(like_first)
def rows_of_columns(builder, vectors):
    """Return the rows, one after another, of a (16, n) matrix from its columns."""
    return _rotated(builder, vectors, (len(vectors) - 1).bit_length())


@operation(nothing)
def transpose_block(builder, n, array, index, stride, out, out_index, out_stride):
    """Write the transpose of an (n, n) block of a matrix; n is a power of two.

    Args:
        n: a `count`.
        array: matrix that is read.
        index: place of the block's first number in `array`.
        stride: distance of two rows of `array`.
        out: matrix that is written.
        out_index: place of the block's first number in `out`.
        out_stride: distance of two rows of `out`.
    """
    vectors = []
    for _ in range(n):
        vectors.append(array.load(index, kind=ir.VectorType(FLOAT, n)))
        index = builder.add(index, stride)
    for column in _rotated(builder, vectors, (n - 1).bit_length()):
        out.store(column, out_index)
        out_index = builder.add(out_index, out_stride)


def _rotated(builder: Any, vectors: list[Any], n_bits: int) -> list[Any]:
    """Rotate the bits of the numbers' indices to the left; all lengths are powers of two.

    Numbers of both halves in turn move the highest bit of each index to the lowest place.
    """
    n_lanes = vectors[0].type.count
    half = n_lanes // 2
    lower = [lane for i in range(half) for lane in (i, n_lanes + i)]
    upper = [lane + half for lane in lower]
    for _ in range(n_bits):
        middle = len(vectors) // 2
        pairs = zip(vectors[:middle], vectors[middle:], strict=True)
        vectors = [_shuffle(builder, a, b, m) for a, b in pairs for m in (lower, upper)]
    return vectors


@operation(like_first)
def scaled(builder, vectors, factor):
    """Return vectors times one vector."""
    return [builder.fmul(vector, factor) for vector in vectors]


@operation(like_first)
def sums(builder, vectors, others):
    """Return the sums of vectors."""
    return [builder.fadd(a, b) for a, b in zip(vectors, others, strict=True)]


@operation(like_first)
def add_multiples(builder, vectors, factor, array, index):
    """Return vectors plus one vector times each of the numbers of an array from an index."""
    return [
        _multiply_add(builder, factor, _repeat(builder, _number(array, index, i)), vector)
        for i, vector in enumerate(vectors)
    ]


@operation(like_first)
def add_multiple(builder, vectors, number, array, index):
    """Return vectors plus a float32 times the vectors that follow each other in an array."""
    factor = _repeat(builder, number)
    return [
        _multiply_add(builder, factor, array.load(index, LANES * i), vector)
        for i, vector in enumerate(vectors)
    ]


@operation(one_vector)
def weighted_sum(builder, vectors, array, index):
    """Return the sum of vectors times the numbers of an array from an index."""
    weights = [_repeat(builder, _number(array, index, i)) for i in range(len(vectors))]
    return _sum_of_products(builder, vectors, weights)


@operation(one_vector)
def product(builder, vectors, others):
    """Return the sum of the products of vectors."""
    return _sum_of_products(builder, vectors, others)


def _number(array: Memory, index: Any, offset: int) -> Any:
    return array.load(index, offset, FLOAT)


def _sum_of_products(builder: Any, vectors: list[Any], others: list[Any]) -> Any:
    """Sum the even and the odd products apart: two chains of additions wait half as long."""
    halves = []
    for start in range(2):
        total = builder.fmul(vectors[start], others[start])
        for a, b in zip(vectors[start + 2 :: 2], others[start + 2 :: 2], strict=True):
            total = _multiply_add(builder, a, b, total)
        halves.append(total)
    return builder.fadd(*halves)


@operation(lambda *_: types.float32)
def product_of_all(builder, vectors, array, index):
    """Return the sum of the products of vectors and those that follow each other in an array."""
    others = [array.load(index, LANES * i) for i in range(len(vectors))]
    return _sum_of_lanes(builder, _sum_of_products(builder, vectors, others), LANES)


@operation(nothing)
def add_four_products(builder, vectors, array, first, second, third, fourth, out, index):
    """Add to four numbers of `out` the sums of products of vectors and others of an array.

    The four sums share most instructions, which takes half as long as four `product_of_all`.

    Args:
        vectors: n vectors.
        array: array of the other vectors.
        first, second, third, fourth: places in `array`, each of n vectors that follow each other.
        out: array.
        index: place of the first of the four numbers.
    """
    a, b, c, d = (
        _sum_of_products(builder, vectors, [array.load(i, LANES * j) for j in range(len(vectors))])
        for i in (first, second, third, fourth)
    )
    ab, cd = (_sum_of_halves(builder, *pair, _PAIRS) for pair in ((a, b), (c, d)))
    total, n = _sum_of_halves(builder, ab, cd, _PAIRS_OF_TWO), LANES
    while n > 4:
        n //= 2
        lower, upper = list(range(n)), list(range(n, 2 * n))
        total = builder.fadd(*(_shuffle(builder, total, total, m) for m in (lower, upper)))
    out.store(builder.fadd(out.load(index, kind=total.type), total), index)


_PAIRS = ([0, LANES, 1, LANES + 1], [2, LANES + 2, 3, LANES + 3])
_PAIRS_OF_TWO = ([0, 1, LANES, LANES + 1], [2, 3, LANES + 2, LANES + 3])


def _sum_of_halves(builder: Any, a: Any, b: Any, halves: tuple[list[int], list[int]]) -> Any:
    """Return the sum of two mixtures of two vectors, each by its lanes of four among 16."""
    lanes = ([four + i for four in range(0, LANES, 4) for i in half] for half in halves)
    return builder.fadd(*(_shuffle(builder, a, b, mixed) for mixed in lanes))


@operation(lambda *_: types.float32)
def sum_of_all(builder, vectors):
    """Return the sum of all numbers of vectors."""
    return _sum_of_lanes(builder, reduce(builder.fadd, vectors), LANES)


@operation(nothing)
def copy_row(_builder, n, array, index, out, out_index):
    """Copy n numbers of an array."""
    out.store(array.load(index, kind=ir.VectorType(FLOAT, n)), out_index)


@operation(nothing)
def copy_multiple(builder, n, array, index, factor, out, out_index):
    """Copy n numbers of an array, times a float32."""
    row = array.load(index, kind=ir.VectorType(FLOAT, n))
    out.store(builder.fmul(row, _repeat(builder, factor, n)), out_index)


@operation(nothing)
def fetch_early(_builder, array, index):
    """Start to move the numbers at an index to the cache, without waiting for them."""
    array.fetch(index)


@operation(lambda *_: types.float32)
def row_product(builder, n, array, index, other, other_index):
    """Return the sum of products of n numbers of two arrays; n is a power of two."""
    kind = ir.VectorType(FLOAT, n)
    total = builder.fmul(array.load(index, kind=kind), other.load(other_index, kind=kind))
    return _sum_of_lanes(builder, total, n)


def _binary(symbol: Any, instruction: str) -> None:
    """Give vectors an operator."""

    @operation(one_vector)
    def apply(builder, a, b):
        return getattr(builder, instruction)(a, b)

    @overload(symbol)
    def typed(a, b):
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: apply(a, b)
        return None


_binary(operator.add, "fadd")
_binary(operator.sub, "fsub")
_binary(operator.mul, "fmul")
_binary(operator.truediv, "fdiv")


def _constant(number: float) -> Any:
    return ir.Constant(FLOATS, [number] * LANES)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(INT, len(lanes)), lanes)
    return builder.shuffle_vector(a, b, mask)


def _repeat(builder: Any, number: Any, n: int = LANES) -> Any:
    empty = ir.Constant(ir.VectorType(number.type, n), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(INT, 0))
    return _shuffle(builder, first, empty, [0] * n)


def _sum_of_lanes(builder: Any, total: Any, n: int) -> Any:
    """Return the sum of n lanes, a power of two, by halves."""
    while n > 1:
        n //= 2
        lower, upper = list(range(n)), list(range(n, 2 * n))
        total = builder.fadd(*(_shuffle(builder, total, total, m) for m in (lower, upper)))
    return builder.extract_element(total, ir.Constant(INT, 0))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    return builder.call(function, [a, b, c])
