"""Linear layers whose float32 products take the full width of a processor that is not Intel's.

On x86 torch's float32 products are MKL's, which on other makers' processors runs its AVX2 code.
oneDNN, which torch brings along, runs AVX-512 on any that has it: 200 GFLOP/s a core of Zen 5 where
MKL reaches 85, with rounding errors up to twice as large. Elsewhere these are torch's own products.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

_IMAGES, _LONG = 16, 16  # sequences, and their tokens
_LEAST = 1 << 20  # multiplications from which on oneDNN's longer start is made up for


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do what `torch.nn.functional.linear` does.

    Args:
        x: (..., D).
        weight: (M, D).
        bias: (M,).

    Returns:
        (..., M). Second derivatives and functorch's transforms may not be had.
    """
    fits = x.dim() > 1 and x.shape[-1] == weight.shape[1] and _fits(bias, weight)
    pays = fits and _pays(x, weight, x.numel() * len(weight))
    if not pays or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return (N, M), the product of (N, K) and (K, M), where neither autograd nor autocast is on.

    The result may be the transposed view of a contiguous matrix.
    """
    (rows, between), columns = a.shape, b.shape[1]
    if not _pays(a, b, rows * between * columns):
        return a @ b
    if between > rows > columns:  # long sums: oneDNN likes the shorter side as rows
        return _by_onednn(b.t(), a).t()
    return _by_onednn(a, b.t())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        to_x, to_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if to_weight else None, weight if to_x else None)
        return _by_onednn(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        rows = grad.flatten(0, -2)
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            product(rows, weight).reshape(*grad.shape[:-1], -1) if to_x else None,
            _of_weight(grad, x) if to_weight else None,
            rows.sum(0) if to_bias else None,
        )


def _of_weight(grad: Tensor, x: Tensor) -> Tensor:
    """Return (M, D), the sum over tokens of (..., M) times (..., D).

    As a convolution's gradient, of sequences as images one pixel high: for its product oneDNN would
    transpose both first, which can take most of the time. Only where torch gives such a convolution
    to oneDNN: on several threads, or for many images.
    """
    enough = x.shape[:-2].numel() >= _IMAGES or torch.get_num_threads() > 1
    if x.dim() == 2 or x.shape[-2] < _LONG or not enough:
        return product(grad.flatten(0, -2).t(), x.flatten(0, -2))
    shape = (grad.shape[-1], x.shape[-1], 1, 1)
    found: Tensor = conv2d_weight(_image(x), shape, _image(grad))  # type: ignore[no-untyped-call]
    return found.view(shape[:2])


def _image(x: Tensor) -> Tensor:
    """Return (..., T, D) as (B, D, 1, T), a view."""
    return x.reshape(-1, *x.shape[-2:]).unsqueeze(1).permute(0, 3, 1, 2)


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # With gaps between rows it would use its reference code, a hundred times slower.
    x, weight = (
        t if t.is_contiguous() or t.t().is_contiguous() else t.contiguous() for t in (x, weight)
    )
    bias = None if bias is None else bias.contiguous()
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _fits(bias: Tensor | None, weight: Tensor) -> bool:
    return bias is None or (bias.shape == weight.shape[:1] and bias.dtype == weight.dtype)


def _pays(one: Tensor, other: Tensor, multiplications: int) -> bool:
    return (
        multiplications >= _LEAST
        and one.dtype == other.dtype == torch.float32
        and one.device.type == other.device.type == "cpu"
        and _onednn_is_faster()
    )


@cache
def _onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 of a maker for whom MKL does not use it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
