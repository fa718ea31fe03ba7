"""Float32 matrix products on the CPU, by the library that is fastest here for their shape.

torch's own are MKL's, which on processors of other makers than Intel may run slow code: on an AMD
with AVX2 alone half of what oneDNN or OpenBLAS reach. oneDNN comes with torch, OpenBLAS with numpy.
Shapes: N rows, K summed over, M columns.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from wirework import fastest
from wirework.errors import InputError

Library = Literal["torch", "onednn", "numpy"]
LIBRARIES: tuple[Library, ...] = ("torch", "onednn", "numpy")
VARIABLE = "WIREWORK_PRODUCTS"
"""Environment variable that names the library to use for all products, without measuring."""

_LEAST = 1 << 20  # multiplications; below, calling another library costs more than it gains
_MEASURED = 1 << 26  # at most so many multiplications to a product that is timed
_IMAGES, _LONG = 16, 16  # sequences, and their tokens


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `a @ b + bias`, where neither autograd nor autocast is on.

    Args:
        a: (N, K).
        b: (K, M).
        bias: (M,).

    Returns:
        (N, M); it may be the transposed view of a contiguous matrix.
    """
    (rows, between), columns = a.shape, b.shape[1]
    library: Library = "torch"
    if fit(a, b):
        library = library_for(layout(a) + layout(b), rows, between, columns)
    return _BY[library](a, b, bias)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the sum over tokens of the outer products of `grad` and `x`.

    Args:
        grad: (..., T, M), contiguous.
        x: (..., T, D).

    Returns:
        (M, D).
    """
    library = gradient_library(x.shape, grad.shape[-1]) if fit(grad, x) else "torch"
    if library == "convolution":
        return _by_convolution(grad, x)
    return _BY[library](grad.flatten(0, -2).t(), x.flatten(0, -2), None)


def fit(one: Tensor, other: Tensor) -> bool:
    """Say whether a library is to be chosen for these operands: float32 on the CPU."""
    return (
        one.dtype == other.dtype == torch.float32
        and one.device.type == other.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def library_for(layouts: str, rows: int, between: int, columns: int) -> Library:
    """Return the library for the product of (rows, between) and (between, columns).

    Args:
        layouts: how both lie in memory, `n` or `t` each (`layout`).
        rows: N.
        between: K.
        columns: M.
    """
    if rows * between * columns < _LEAST:
        return "torch"
    if forced := _forced():
        return forced
    sizes = tuple(_power_of_two(size) for size in (rows, between, columns))
    question = f"product {layouts} {'x'.join(map(str, sizes))}"
    return fastest.choose(question, _default(), partial(_ways, layouts, *sizes))  # type: ignore[return-value]


def gradient_library(shape: torch.Size, out: int) -> Library | Literal["convolution"]:
    """Return what is to make the gradient of a weight: a library, or oneDNN's convolution.

    As a convolution's gradient, of sequences as images one pixel high, neither operand need be
    transposed, which oneDNN does first for its product and which can take most of the time. Only
    where torch gives such a convolution to oneDNN: on several threads, or for many images.

    Args:
        shape: of the layer's input, (..., T, D).
        out: M, width of its output.
    """
    *before, tokens, width = shape
    images = math.prod(before)
    several = images >= _IMAGES or torch.get_num_threads() > 1
    if not before or tokens < _LONG or not several or not _has_onednn():
        return library_for("tn", out, images * tokens, width)
    if images * tokens * width * out < _LEAST:
        return "torch"
    if forced := _forced():
        return "convolution" if forced == "onednn" else forced
    sizes = tuple(_power_of_two(size) for size in (images, tokens, width, out))
    question = f"weight gradient {'x'.join(map(str, sizes))}"
    default = "convolution" if _default() == "onednn" else "torch"
    return fastest.choose(question, default, partial(_gradient_ways, *sizes))  # type: ignore[return-value]


def layout(matrix: Tensor) -> str:
    """Return `t` for the transposed view of a matrix in memory, `n` for any other."""
    return "t" if matrix.stride(0) == 1 and matrix.stride(1) != 1 else "n"


def available() -> tuple[Library, ...]:
    """Return the libraries that can be used here, with torch's present number of threads.

    OpenBLAS keeps threads of its own, which would compete with torch's: it takes part on one only.
    """
    here: dict[Library, bool] = {
        "torch": True,
        "onednn": _has_onednn(),
        "numpy": torch.get_num_threads() == 1 and _openblas() is not None,
    }
    return tuple(name for name in LIBRARIES if here[name])


def _forced() -> Library | None:
    """Return the library that the environment names; torch where it is not to be had here."""
    name = os.environ.get(VARIABLE, "auto")
    if name == "auto":
        return None
    for library in LIBRARIES:
        if name == library:
            return library if library in available() else "torch"
    raise InputError(f"{VARIABLE} must be auto, {', '.join(LIBRARIES)}, got {name!r}")


def _by_torch(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    return a @ b if bias is None else torch.addmm(bias, a, b)


def _by_onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    (rows, between), columns = a.shape, b.shape[1]
    if bias is None and between > rows > columns:  # long sums: it likes the shorter side as rows
        return _by_onednn(b.t(), a.t()).t()
    # With gaps between rows it would use its reference code, a hundred times slower.
    x, weight = (
        t if t.is_contiguous() or t.t().is_contiguous() else t.contiguous() for t in (a, b.t())
    )
    bias = None if bias is None else bias.contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _by_numpy(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    out = torch.empty(a.shape[0], b.shape[1])
    with _one_openblas_thread():
        np.matmul(a.detach().numpy(), b.detach().numpy(), out=out.numpy())
    return out if bias is None else out.add_(bias)


def _by_convolution(grad: Tensor, x: Tensor) -> Tensor:
    shape = (grad.shape[-1], x.shape[-1], 1, 1)
    found: Tensor = conv2d_weight(_image(x), shape, _image(grad))  # type: ignore[no-untyped-call]
    return found.view(shape[:2])


def _image(x: Tensor) -> Tensor:
    """Return (..., T, D) as (B, D, 1, T), a view."""
    return x.reshape(-1, *x.shape[-2:]).unsqueeze(1).permute(0, 3, 1, 2)


_BY: Mapping[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "torch": _by_torch,
    "onednn": _by_onednn,
    "numpy": _by_numpy,
}


def _ways(layouts: str, *sizes: int) -> dict[str, Callable[[], Any]]:
    """Return candidates for a class of products, on operands of the class's own size."""
    rows, between, columns = _shrunk(*sizes)
    a = _filled(rows, between, layouts[0])
    b = _filled(between, columns, layouts[1])
    return {name: partial(_BY[name], a, b, None) for name in available()}


def _gradient_ways(images: int, tokens: int, width: int, out: int) -> dict[str, Callable[[], Any]]:
    while images > _IMAGES and images * tokens * width * out > _MEASURED:
        images //= 2
    grad = _filled(images * tokens, out, "n")
    x = _filled(images * tokens, width, "n")
    split = (images, tokens, -1)
    return {
        **{name: partial(_BY[name], grad.t(), x, None) for name in available()},
        "convolution": partial(_by_convolution, grad.view(split), x.view(split)),
    }


def _shrunk(*sizes: int) -> tuple[int, ...]:
    """Halve the largest of three sizes until a product of them is quick to time."""
    found = list(sizes)
    while found[0] * found[1] * found[2] > _MEASURED:
        found[found.index(max(found))] //= 2
    return tuple(found)


def _filled(rows: int, columns: int, lies: str) -> Tensor:
    """Return a matrix of harmless numbers, without drawing on torch's random state."""
    if lies == "t":
        return _filled(columns, rows, "n").t()
    return torch.linspace(-1, 1, rows * columns).view(rows, columns)


def _power_of_two(size: int) -> int:
    """Return the nearest power of two."""
    return 1 << (4 * size // 3).bit_length() - 1


def _default() -> Library:
    """Return the library that is likely best: what is taken unless another is clearly faster."""
    return "onednn" if _is_avx512_without_intel() else "torch"


@cache
def _is_avx512_without_intel() -> bool:
    """Whether this is a processor with AVX-512 of a maker for whom MKL does not use it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _has_onednn():
        return False
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@cache
def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@contextmanager
def _one_openblas_thread() -> Iterator[None]:
    library = _openblas()
    before = library.get_num_threads() if library else 1
    if before == 1:
        yield
        return
    library.set_num_threads(1)
    try:
        yield
    finally:
        library.set_num_threads(before)


@cache
def _openblas() -> Any:
    """Return the control of numpy's OpenBLAS, or None where numpy uses another library."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return next((one for one in found if "numpy" in one.filepath), None)
