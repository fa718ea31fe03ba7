"""Attention of an ablated stream: earlier positions from the clean stream, one's own from itself.

With a fused attention over the strictly earlier positions, whose log-sum-exp is `past`, and the
score `own` of one's own key, the softmax over all is theirs weighted by exp(past - all) and
exp(own - all), where all = log(exp(past) + exp(own)), with exp(sink) added if there is a sink.
Nothing is subtracted, so nothing cancels. Given `all` and the joint output, the kernel's own
backward is the right one for the earlier positions.
Shapes: B sequences, H heads, T tokens, K channels of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.attention import fused, fused_backward, window_bias


def own_position_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own_k: Tensor,
    own_v: Tensor,
    *,
    sink: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Attend to the tokens before one's own in one stream and to one's own in another.

    Args:
        q: (B, H, T, K), of the ablated stream.
        k, v: (B, H, T, K), of the clean stream; those at t serve the tokens after t.
        own_k, own_v: (B, H, T, K), of the ablated stream; those at t serve the token at t.
        sink, scale, window: as `causal_attention` takes them.

    Returns:
        (B, H, T, K) in the dtype of `q`.

    Source: Ferrao et al. 2025 (two residual streams).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = _OwnPosition.apply(q, k, v, own_k, own_v, sink, scale, window)  # type: ignore[no-untyped-call]
    return out


class _OwnPosition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        own_k: Tensor,
        own_v: Tensor,
        sink: Tensor | None,
        scale: float,
        window: int | None,
    ) -> Tensor:
        ctx.dtype, ctx.scale = q.dtype, scale
        compute = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, k, v, own_k, own_v = (t.to(compute) for t in (q, k, v, own_k, own_v))
        own = torch.linalg.vecdot(q, own_k) * scale
        sees_past = q.shape[-2] > 1 and window != 1
        ctx.bias = _past_bias(q, window) if sees_past else None
        every = own.clone() if sink is None else torch.logaddexp(own, sink.to(compute)[:, None])
        if sees_past:
            past_y, past = fused(q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], ctx.bias, scale)
            every[..., 1:] = torch.logaddexp(past, every[..., 1:])
        y = own_v * (own - every).exp_().unsqueeze(-1)
        if sees_past:
            y[..., 1:, :] += past_y * (past - every[..., 1:]).exp_().unsqueeze(-1)
        ctx.sees_past = sees_past
        ctx.save_for_backward(q, k, v, own_k, own_v, y, every, own, sink)
        lowered: Tensor = y.to(ctx.dtype)
        return lowered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, own_k, own_v, y, every, own, sink = ctx.saved_tensors
        grad = grads[0].to(q.dtype)
        share, level = (own - every).exp_(), torch.linalg.vecdot(grad, y)
        gain = torch.linalg.vecdot(grad, own_v) - level
        to_score = (share * gain * ctx.scale).unsqueeze(-1)
        to_q, to_own_k, to_own_v = to_score * own_k, to_score * q, share.unsqueeze(-1) * grad
        to_k, to_v = torch.zeros_like(k), torch.zeros_like(v)
        if ctx.sees_past:
            past = q[..., 1:, :], k[..., :-1, :], v[..., :-1, :], y[..., 1:, :], every[..., 1:]
            from_past = fused_backward(grad[..., 1:, :], *past, ctx.bias, ctx.scale)
            to_q[..., 1:, :] += from_past[0]
            to_k[..., :-1, :], to_v[..., :-1, :] = from_past[1:]
        to_sink = None
        if sink is not None:  # a key whose value, zero, gains nothing
            lost = (sink.to(every.dtype)[:, None] - every).exp_() * level
            to_sink = -lost.sum((0, 2)).to(sink.dtype)
        found = (to_q, to_k, to_v, to_own_k, to_own_v)
        return (*(t.to(ctx.dtype) for t in found), to_sink, None, None)


def _past_bias(q: Tensor, window: int | None) -> Tensor | None:
    """Return the (T - 1, T - 1) bias of a window's earlier positions; None where all are seen."""
    length = q.shape[-2] - 1
    if window is None or window - 1 >= length:
        return None
    return window_bias(length, window - 1, q.device).to(q.dtype)
