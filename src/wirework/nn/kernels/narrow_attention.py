"""Causal attention of narrow heads on a CPU by compiled kernels, in both streams.

Whether they are used is measured once per machine for a number of channels and of tokens. The
number of sequences has no part in the choice: a sequence gives the same bits in every batch.

Shapes: B sequences, H heads, T tokens, K channels of a head.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework import fastest
from wirework.block_pool import empty
from wirework.nn.kernels import compiled
from wirework.nn.kernels.pieces import each_piece

_CHANNELS = (8, 16, 32)
_MIN_TOKENS = 64  # below, the calls cost more than is saved
_MAX_TIMED_TOKENS = 1024
_TIMED_HEADS, _TIMED_SCORES = 8, 1 << 20  # of one measurement
_NO_WINDOW = 1 << 30
_Floats = NDArray[np.float32]
_Count = tuple[int, ...]
_Settings = tuple[int, int, _Floats, float, int, bool, _Count, _Count]
_FlatInputs = tuple[_Floats, _Floats, _Floats, _Floats, _Floats]


def is_faster(q: Tensor, scale: float, other: Callable[..., Tensor]) -> bool:
    """Return whether `narrow_attention` can compute these heads and measured faster here.

    Args:
        q: (B, H, T, K) queries on the CPU.
        scale: factor on the scores.
        other: causal attention of (B, H, T, K) queries, keys and values that it is compared with.
    """
    length, channels = q.shape[2:]
    fits = channels in _CHANNELS and length >= _MIN_TOKENS and scale > 0 and q.numel() > 0
    if not fits or q.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    if not compiled.is_available():
        return False
    tokens = min(_MAX_TIMED_TOKENS, 1 << (length - 1).bit_length())
    question = f"attention of {channels} channels, {tokens} tokens"
    return fastest.choose(question, "torch", lambda: _ways(tokens, channels, other)) == "compiled"


def narrow_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own: tuple[Tensor, Tensor] | None,
    sink: Tensor | None,
    scale: float,
    window: int | None,
) -> Tensor:
    """Return causal attention, (B, H, T, K), in memory as of a contiguous (B, T, H, K).

    It computes in float32; the gradients' memory is like the output's.

    Args:
        q, k, v: (B, H, T, K) on the CPU; K is 8, 16 or 32.
        own: keys and values, (B, H, T, K) each, that take the place of those of `k` and `v` at the
            query's own position; None for those of `k` and `v`.
        sink: (H,) sink logits; None for none.
        scale: factor on the scores, above 0.
        window: number of positions that a token attends to, including itself; None for all.
    """
    own_k, own_v = (None, None) if own is None else (t.float() for t in own)
    out: Tensor = _NarrowAttention.apply(  # type: ignore[no-untyped-call]
        q.float(), k.float(), v.float(), own_k, own_v, sink, scale, window
    )
    return out.to(q.dtype)


class _NarrowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        own_k: Tensor | None,
        own_v: Tensor | None,
        sink: Tensor | None,
        scale: float,
        window: int | None,
    ) -> Tensor:
        from wirework.nn.kernels.compiled.attention import attend

        inputs = [_with_adjacent_channels(t) for t in (q, k, v, own_k, own_v) if t is not None]
        out, top, total = _like_projection(q), q.new_empty(q.shape[:3]), q.new_empty(q.shape[:3])
        read = _read_by_both(inputs, [out], sink, scale, window)
        results = (_flat(out), _flat(top), _flat(total))

        def work(first: int, last: int) -> None:
            attend(read.inputs, read.strides, *read.settings, first, last, *results)

        _each_head(q, work)
        ctx.scale, ctx.window = scale, window
        ctx.save_for_backward(out, top, total, sink, *inputs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from wirework.nn.kernels.compiled.attention_backward import attend_backward

        out, top, total, sink, *inputs = ctx.saved_tensors
        q, grad = inputs[0], _with_adjacent_channels(grads[0])
        gradients, to_sinks = [_like_projection(q) for _ in inputs], q.new_empty(q.shape[:2])
        others = [grad, out, *_five(gradients)]
        read = _read_by_both(inputs, others, sink, ctx.scale, ctx.window)
        results = (_flat(grad), _flat(out), _flat(top), _flat(total))
        made = (_flat_inputs(gradients), _flat(to_sinks))

        def work(first: int, last: int) -> None:
            attend_backward(read.inputs, results, read.strides, *read.settings, first, last, *made)

        _each_head(q, work)
        to_sink = None if sink is None else to_sinks.sum(0).to(sink.dtype)
        own = gradients[3:] if len(inputs) == 5 else [None, None]
        return (*gradients[:3], *own, to_sink, None, None)


def _each_head(q: Tensor, work: Callable[[int, int], None]) -> None:
    """Call a function with the first head, and the one after the last, of pieces of all heads."""
    n_heads = q.shape[0] * q.shape[1]
    each_piece(n_heads, q.shape[2] ** 2, lambda p: work(p.start, min(p.stop, n_heads)))


class _Read(NamedTuple):
    """Arguments that the kernels of both passes have in common."""

    inputs: _FlatInputs
    strides: NDArray[np.int64]
    settings: _Settings
    """From the number of heads to the groups of channels."""


def _read_by_both(
    inputs: list[Tensor],
    others: list[Tensor],
    sink: Tensor | None,
    scale: float,
    window: int | None,
) -> _Read:
    """Return the common arguments.

    Args:
        inputs: queries, keys and values, and own keys and values if there are any.
        others: tensors of the same shape whose strides follow those of the inputs.
        sink, scale, window: as in `narrow_attention`.
    """
    strides = np.array([t.stride()[:3] for t in (*_five(inputs), *others)], np.int64)
    settings = _settings(inputs[0], sink, scale, window, is_past=len(inputs) == 5)
    return _Read(_flat_inputs(inputs), strides, settings)


def _settings(
    q: Tensor, sink: Tensor | None, scale: float, window: int | None, *, is_past: bool
) -> _Settings:
    _, heads, length, channels = q.shape
    sinks = np.full(heads, -np.inf, np.float32)
    if sink is not None:
        sinks = sink.detach().float().div(scale).numpy()
    reach = _NO_WINDOW if window is None else window
    # Sums of so many channels fit in the registers.
    together = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 4
    group = min(channels, together)
    # Tuples as `count` makes them: that module cannot be imported without numba.
    return heads, length, sinks, scale, reach, is_past, (0,) * channels, (0,) * group


def _like_projection(q: Tensor) -> Tensor:
    """Return uninitialised (B, H, T, K) whose memory is that of a contiguous (B, T, H, K)."""
    count, heads, length, channels = q.shape
    return empty((count, length, heads, channels), q.dtype).transpose(1, 2)


def _with_adjacent_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _five(tensors: list[Tensor]) -> list[Tensor]:
    """Return five tensors: without own keys and values, those of all stand in for them."""
    return tensors if len(tensors) == 5 else [*tensors, *tensors[1:]]


def _flat_inputs(tensors: list[Tensor]) -> _FlatInputs:
    q, k, v, own_k, own_v = (_flat(t) for t in _five(tensors))
    return q, k, v, own_k, own_v


def _flat(x: Tensor) -> _Floats:
    """Return the memory of a tensor from its first to its last entry."""
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    flat: _Floats = x.detach().as_strided((last + 1,), (1,)).numpy()
    return flat


def _ways(
    tokens: int, channels: int, other: Callable[..., Tensor]
) -> dict[str, Callable[[], object]]:
    count = math.ceil(_TIMED_SCORES / (_TIMED_HEADS * tokens**2))
    shape = (count, tokens, 3 * _TIMED_HEADS * channels)
    joint = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts = [t.view(count, tokens, -1, channels).transpose(1, 2) for t in joint.chunk(3, -1)]
    leaves = [part.requires_grad_() for part in parts]

    def run(attend: Callable[..., Tensor]) -> object:
        with torch.enable_grad():
            out = attend(*leaves).transpose(1, 2).flatten(2)
            return torch.autograd.grad(out, leaves, torch.ones_like(out))

    scale = channels**-0.5
    return {
        "torch": lambda: run(other),
        "compiled": lambda: run(lambda q, k, v: narrow_attention(q, k, v, None, None, scale, None)),
    }
