"""The type of vectors of 16 float32 in compiled kernels, and operations that write instructions.

The instructions are those of LLVM, which numba compiles. With `NUMBA_CACHE_DIR` set, saved code of
a kernel is renewed only when the file of the kernel changes, not when this file does.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 16
"""Numbers in a vector: one register with AVX-512, two with AVX2."""
INT, FLOAT = ir.IntType(32), ir.FloatType()
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


class Vector(types.Type):
    """The type of a vector in compiled code."""

    def __init__(self) -> None:
        super().__init__("vector of 16 float32")


_vector = Vector()


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


class Memory:
    """The numbers of an array, one after another."""

    def __init__(self, builder: Any, start: Any) -> None:
        self._builder, self._start = builder, start

    @property
    def kind(self) -> Any:
        """Type of a number."""
        return self._start.type.pointee

    def load(self, index: Any, offset: int = 0, kind: Any = FLOATS) -> Any:
        """Return the number or the numbers at an index plus an offset."""
        return self._builder.load(self._place(index, offset, kind), align=1)

    def store(self, value: Any, index: Any, offset: int = 0) -> None:
        """Write a number or numbers at an index plus an offset."""
        self._builder.store(value, self._place(index, offset, value.type), align=1)

    def fetch(self, index: Any) -> None:
        """Start to move the numbers at an index to the cache."""
        start = self._place(index, 0, ir.IntType(8))
        arguments = [start, *(ir.Constant(INT, number) for number in (0, 2, 1))]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        name = "llvm.prefetch.p0"
        function = cgutils.get_or_insert_function(self._builder.module, kind, name)
        self._builder.call(function, arguments)

    def _place(self, index: Any, offset: int, kind: Any) -> Any:
        builder = self._builder
        place = builder.gep(self._start, [builder.add(index, ir.Constant(index.type, offset))])
        return builder.bitcast(place, kind.as_pointer())


def operation(result: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make an operation of a function that writes its instructions.

    The function gets the builder of LLVM's instructions and the arguments: a `Memory` for an array,
    a list for a tuple of vectors, an int for a `count`, else the value.

    Args:
        result: returns the type of the result, from the types of the arguments.
    """

    def decorate(write: Callable[..., Any]) -> Any:
        def typed(_: Any, *kinds: Any) -> Any:
            if any(isinstance(kind, types.Array) and kind.layout != "C" for kind in kinds):
                raise TypingError(f"{write.__name__} needs contiguous arrays, got {kinds}")

            def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
                pairs = zip(kinds, given, strict=True)
                arguments = [_argument(context, builder, kind, value) for kind, value in pairs]
                made = write(builder, *arguments)
                if isinstance(made, list):
                    return context.make_tuple(builder, signature.return_type, made)
                return context.get_dummy_value() if made is None else made

            return result(*kinds)(*kinds), code

        return intrinsic(update_wrapper(typed, write))  # numba reads the names of the arguments

    return decorate


def _argument(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        return Memory(builder, context.make_array(kind)(context, builder, value).data)
    if isinstance(kind, types.UniTuple):
        is_count = not isinstance(kind.dtype, Vector)
        return len(kind) if is_count else cgutils.unpack_tuple(builder, value, len(kind))
    return value


def one_vector(*_: Any) -> Any:
    """Return the type of a vector."""
    return _vector


def nothing(*_: Any) -> Any:
    """Return the type of no result."""
    return types.void


def like_first(kind: Any, *_: Any) -> Any:
    """Return the type of the first argument."""
    return kind


def as_many(*kinds: Any) -> Any:
    """Return the type of as many vectors as the `count` that is the last argument."""
    return types.UniTuple(_vector, len(kinds[-1]))
