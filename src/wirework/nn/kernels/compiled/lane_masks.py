"""Operations on 16 numbers at once whose results depend on a condition for each of them.

A mask has a bit for each number, the first one the lowest.
"""

from typing import Any

from llvmlite import ir
from numba.core import types

from wirework.nn.kernels.compiled.vector_type import (
    INT,
    LANES,
    Memory,
    like_first,
    nothing,
    operation,
)

_MASK, _CONDITIONS = ir.IntType(LANES), ir.VectorType(ir.IntType(1), LANES)


@operation(lambda *_: types.int64)
def mask_of_equal(builder, array, index, number):
    """Return the mask of 16 integers of an array, from an index, that equal a number."""
    equal = builder.icmp_signed("==", _load(array, index), _repeat(builder, number))
    return builder.zext(builder.bitcast(equal, _MASK), ir.IntType(64))


@operation(lambda *_: types.int64)
def mask_of_reaching(builder, array, index, number):
    """Return the mask of 16 floats of an array, from an index, that are a number or more."""
    reached = builder.fcmp_ordered(">=", _load(array, index), _repeat(builder, number))
    return builder.zext(builder.bitcast(reached, _MASK), ir.IntType(64))


@operation(lambda *_: types.boolean)
def any_nonzero(builder, array, index):
    """Return whether any of 16 floats of an array, from an index, is not 0, as NaN is not."""
    numbers = _load(array, index)
    zero = ir.Constant(numbers.type, [0.0] * LANES)
    mask = builder.bitcast(builder.fcmp_unordered("!=", numbers, zero), _MASK)
    return builder.icmp_unsigned("!=", mask, ir.Constant(_MASK, 0))


@operation(lambda *_: types.int64)
def mask_of_large(builder, array, index, magnitude, least):
    """Return the mask of 16 integers of an array whose bits in `magnitude` reach `least`."""
    keys = builder.and_(_load(array, index), _repeat(builder, magnitude))
    is_large = builder.icmp_signed(">=", keys, _repeat(builder, least))
    return builder.zext(builder.bitcast(is_large, _MASK), ir.IntType(64))


@operation(nothing)
def copy_large(builder, array, index, magnitude, least, out, mask):
    """Copy 16 integers whose bits in `magnitude` reach `least`, or 0, and write their mask.

    Args:
        array: integers.
        index: place of the first one, the same in `array` and in `out`.
        magnitude: integer of the same type.
        least: integer of the same type.
        out: array of the same type.
        mask: bytes, of a bit for each number of `out`.
    """
    numbers = _load(array, index)
    keys = builder.and_(numbers, _repeat(builder, magnitude))
    is_large = builder.icmp_signed(">=", keys, _repeat(builder, least))
    out.store(_or_zero(builder, is_large, numbers), index)
    byte = builder.lshr(index, ir.Constant(index.type, 3))
    mask.store(builder.bitcast(is_large, _MASK), byte)


@operation(nothing)
def copy_chosen(builder, mask, array, index, out):
    """Copy 16 integers that are in the mask of an array, or 0; all places are those of `index`."""
    byte = builder.lshr(index, ir.Constant(index.type, 3))
    chosen = builder.bitcast(mask.load(byte, kind=_MASK), _CONDITIONS)
    out.store(_or_zero(builder, chosen, _load(array, index)), index)


@operation(lambda *_: types.uint64)
def word_at(_builder, mask, index):
    """Return eight bytes of a mask from an index as one number."""
    return mask.load(index, kind=ir.IntType(64))


@operation(like_first)
def lowest_bit(builder, mask):
    """Return the place of the lowest bit that is 1, of a mask that is not 0."""
    return builder.cttz(mask, ir.Constant(ir.IntType(1), 1))


@operation(like_first)
def count_bits(builder, mask):
    """Return the number of bits that are 1."""
    return builder.ctpop(mask)


def _load(array: Memory, index: Any) -> Any:
    return array.load(index, kind=ir.VectorType(array.kind, LANES))


def _or_zero(builder: Any, conditions: Any, numbers: Any) -> Any:
    return builder.select(conditions, numbers, ir.Constant(numbers.type, [0] * LANES))


def _repeat(builder: Any, number: Any) -> Any:
    empty = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(INT, 0))
    lanes = ir.Constant(ir.VectorType(INT, LANES), [0] * LANES)
    return builder.shuffle_vector(first, empty, lanes)
