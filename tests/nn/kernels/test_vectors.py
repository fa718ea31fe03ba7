"""Operations of compiled code on vectors of 16 numbers."""

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.typing import NDArray

from wirework.nn.kernels.compiled import vectors
from wirework.nn.kernels.compiled.compiler import compiled
from wirework.nn.kernels.compiled.vectors import count


@compiled
def powers(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    for i in range(0, len(x), 16):
        vectors.store(out, i, vectors.exp2(vectors.load(x, i)))


@compiled
def transposed(
    rows: NDArray[np.float32],
    n: tuple[int, ...],
    columns: NDArray[np.float32],
    back: NDArray[np.float32],
) -> None:
    found = vectors.columns_of_rows(vectors.load_vectors(rows, 0, n))
    vectors.store_vectors(columns, 0, found)
    vectors.store_vectors(back, 0, vectors.rows_of_columns(found))


@compiled
def chosen(x: NDArray[np.float32], first: int, last: int) -> None:
    zero = vectors.repeat(np.float32(0))
    vectors.store(x, 0, vectors.lanes_between(first, last, vectors.load(x, 0), zero))


def power_of(*x: float) -> NDArray[np.float32]:
    given = np.resize(np.array(x, np.float32), 16 * -(-len(x) // 16))
    out = np.empty_like(given)
    powers(given, out)
    return out[: len(x)]


def test_exp2_is_that_of_float64_to_rounding() -> None:
    x = np.random.default_rng(0).uniform(-126, 1, 1 << 16).astype(np.float32)
    error = power_of(*x) / np.exp2(x.astype(np.float64)) - 1
    assert abs(error).max() < 1.5e-7


def test_exp2_of_integers_is_exact() -> None:
    x = np.arange(-126, 127)
    np.testing.assert_array_equal(power_of(*x), np.exp2(x.astype(np.float64)).astype(np.float32))


def test_exp2_of_what_is_too_small_is_0_and_nan_stays() -> None:
    found = power_of(-127, -1e4, -np.inf, np.nan)
    np.testing.assert_array_equal(found, [0, 0, 0, np.nan])


@pytest.mark.parametrize("n", [8, 16, 32])
def test_columns_of_rows_and_back(n: int) -> None:
    rows = np.arange(16 * n, dtype=np.float32)
    columns, back = np.empty_like(rows), np.empty_like(rows)
    transposed(rows, count(n), columns, back)
    np.testing.assert_array_equal(columns.reshape(n, 16), rows.reshape(16, n).T)
    np.testing.assert_array_equal(back, rows)


@pytest.mark.parametrize(("first", "last"), [(0, 16), (3, 7), (-5, 2), (12, 90), (8, 8)])
def test_lanes_between(first: int, last: int) -> None:
    x = np.arange(1, 17, dtype=np.float32)
    wanted = [number if first <= lane < last else 0 for lane, number in enumerate(x)]
    chosen(x, first, last)
    np.testing.assert_array_equal(x, wanted)


def test_an_array_with_gaps_is_refused_when_the_kernel_is_compiled():
    x = np.zeros(64, np.float32)
    with pytest.raises(TypingError, match="load needs contiguous arrays"):
        powers(x[::2], x[::2])
