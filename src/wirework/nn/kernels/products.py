"""Float32 matrix products on the CPU with the library that is fastest for their shape.

torch calls MKL, which may be slow on processors that are not from Intel: on an AMD with AVX2 only,
it reaches half the rate of oneDNN or OpenBLAS. oneDNN comes with torch, OpenBLAS with numpy.
Shapes: (N, K) times (K, M).
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
from wirework.block_pool import empty
from wirework.errors import InputError

Library = Literal["torch", "onednn", "numpy"]
LIBRARIES: tuple[Library, ...] = ("torch", "onednn", "numpy")
VARIABLE = "WIREWORK_PRODUCTS"
"""Environment variable that sets the library of all products, without measuring."""

_MIN_CHOSEN = 1 << 20  # multiplications; below it, another library costs more than it saves
_MAX_TIMED = 1 << 26  # most multiplications of a product that is timed
_MIN_IMAGES, _MIN_TOKENS = 16, 16  # sequences and tokens from which torch uses the convolution


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `a @ b + bias`, without autograd and autocast.

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


def dense_weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a linear layer's weight: the sum over tokens of outer products.

    `weight_gradient.py` leaves out zeros where that is faster.

    Args:
        grad: (..., T, M) gradient of the output, contiguous.
        x: (..., T, D) input.

    Returns:
        (M, D).
    """
    library = gradient_library(x.shape, grad.shape[-1]) if fit(grad, x) else "torch"
    if library == "convolution":
        return _by_convolution(grad, x)
    return _BY[library](grad.flatten(0, -2).t(), x.flatten(0, -2), None)


def fit(a: Tensor, b: Tensor) -> bool:
    """Return whether a library is chosen for these operands: both are float32 on the CPU."""
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )


def library_for(layouts: str, rows: int, between: int, columns: int) -> Library:
    """Return the library for the product of (rows, between) and (between, columns).

    Args:
        layouts: memory layouts of both operands, `n` or `t` each (see `layout`).
        rows: N.
        between: K.
        columns: M.
    """
    if rows * between * columns < _MIN_CHOSEN:
        return "torch"
    if forced := forced_library():
        return forced
    sizes = tuple(_power_of_two(size) for size in (rows, between, columns))
    key = f"product {layouts} {'x'.join(map(str, sizes))}"
    return fastest.choose(key, _default(), partial(_candidates, layouts, *sizes))  # type: ignore[return-value]


def gradient_library(shape: torch.Size, out: int) -> Library | Literal["convolution"]:
    """Return the library for the gradient of a weight, or `convolution` for oneDNN's convolution.

    The gradient can be computed as that of a convolution, with sequences as images one pixel high.
    oneDNN then need not transpose an operand, which can take most of the time of its product. torch
    passes such a convolution to oneDNN only on several threads or for many images.

    Args:
        shape: shape of the layer's input, (..., T, D).
        out: M, width of the layer's output.
    """
    *before, tokens, width = shape
    images = math.prod(before)
    is_onednn_convolution = images >= _MIN_IMAGES or torch.get_num_threads() > 1
    if not before or tokens < _MIN_TOKENS or not is_onednn_convolution or not _has_onednn():
        return library_for("tn", out, images * tokens, width)
    if images * tokens * width * out < _MIN_CHOSEN:
        return "torch"
    if forced := forced_library():
        return "convolution" if forced == "onednn" else forced
    sizes = tuple(_power_of_two(size) for size in (images, tokens, width, out))
    key = f"weight gradient {'x'.join(map(str, sizes))}"
    default = "convolution" if _default() == "onednn" else "torch"
    return fastest.choose(key, default, partial(_gradient_candidates, *sizes))  # type: ignore[return-value]


def layout(matrix: Tensor) -> str:
    """Return `t` for the transposed view of a row-major matrix, `n` for any other."""
    return "t" if matrix.stride(0) == 1 and matrix.stride(1) != 1 else "n"


def available() -> tuple[Library, ...]:
    """Return the libraries that can be used with torch's current number of threads.

    OpenBLAS has its own threads, which would compete with torch's: it is used on one thread only.
    """
    usable: dict[Library, bool] = {
        "torch": True,
        "onednn": _has_onednn(),
        "numpy": torch.get_num_threads() == 1 and _openblas() is not None,
    }
    return tuple(name for name in LIBRARIES if usable[name])


def forced_library() -> Library | None:
    """Return the library that the environment sets, or torch if that one is not available.

    Raises:
        InputError: the variable names no library.
    """
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
    if (
        bias is None and between > rows > columns
    ):  # long sums are faster with the shorter side as rows
        return _by_onednn(b.t(), a.t()).t()
    # For matrices with gaps between rows oneDNN uses reference code, a hundred times slower.
    x, weight = (
        t if t.is_contiguous() or t.t().is_contiguous() else t.contiguous() for t in (a, b.t())
    )
    bias = None if bias is None else bias.contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _by_numpy(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    out = empty((a.shape[0], b.shape[1]))
    with _one_openblas_thread():
        np.matmul(a.detach().numpy(), b.detach().numpy(), out=out.numpy())
    return out if bias is None else out.add_(bias)


def _by_convolution(grad: Tensor, x: Tensor) -> Tensor:
    shape = (grad.shape[-1], x.shape[-1], 1, 1)
    gradient: Tensor = conv2d_weight(_image(x), shape, _image(grad))  # type: ignore[no-untyped-call]
    return gradient.view(shape[:2])


def _image(x: Tensor) -> Tensor:
    """Return (..., T, D) as (B, D, 1, T), a view."""
    return x.reshape(-1, *x.shape[-2:]).unsqueeze(1).permute(0, 3, 1, 2)


_BY: Mapping[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "torch": _by_torch,
    "onednn": _by_onednn,
    "numpy": _by_numpy,
}


def _candidates(layouts: str, *sizes: int) -> dict[str, Callable[[], Any]]:
    """Return a function for each library that computes a product of about these sizes."""
    rows, between, columns = _shrunk(*sizes)
    a = _filled(rows, between, layouts[0])
    b = _filled(between, columns, layouts[1])
    return {name: partial(_BY[name], a, b, None) for name in available()}


def _gradient_candidates(
    images: int, tokens: int, width: int, out: int
) -> dict[str, Callable[[], Any]]:
    while images > _MIN_IMAGES and images * tokens * width * out > _MAX_TIMED:
        images //= 2
    grad = _filled(images * tokens, out, "n")
    x = _filled(images * tokens, width, "n")
    split = (images, tokens, -1)
    return {
        **{name: partial(_BY[name], grad.t(), x, None) for name in available()},
        "convolution": partial(_by_convolution, grad.view(split), x.view(split)),
    }


def _shrunk(*sizes: int) -> tuple[int, ...]:
    """Halve the largest of three sizes until the product is quick to time."""
    shapes = list(sizes)
    while shapes[0] * shapes[1] * shapes[2] > _MAX_TIMED:
        shapes[shapes.index(max(shapes))] //= 2
    return tuple(shapes)


def _filled(rows: int, columns: int, layout_: str) -> Tensor:
    """Return a matrix of ordinary numbers, without using torch's random state."""
    if layout_ == "t":
        return _filled(columns, rows, "n").t()
    return torch.linspace(-1, 1, rows * columns).view(rows, columns)


def _power_of_two(size: int) -> int:
    """Return the nearest power of two."""
    return 1 << (4 * size // 3).bit_length() - 1


def _default() -> Library:
    """Return the library that is used unless another one is clearly faster."""
    return "onednn" if _is_avx512_without_intel() else "torch"


@cache
def _is_avx512_without_intel() -> bool:
    """Return whether the processor has AVX-512 and is not from Intel: MKL does not use it then."""
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
    """Return the controller of numpy's OpenBLAS, or None if numpy uses another library."""
    from threadpoolctl import ThreadpoolController

    controllers = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return next((controller for controller in controllers if "numpy" in controller.filepath), None)
