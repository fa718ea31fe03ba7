"""Attention of the ablated stream: earlier positions are clean, a token's own position is ablated.

Compiled kernels compute narrow heads on a CPU (`narrow_attention.py`). For others, a fused
attention over the strictly earlier positions gives an output and a log-sum-exp `past_lse`.
With `own_score`, the score of the token's own key, the joint softmax weights that output by
exp(past_lse - joint_lse) and the own value by exp(own_score - joint_lse), where joint_lse =
log(exp(past_lse) + exp(own_score)), plus exp(sink) inside the logarithm if there is a sink. No two
large terms are subtracted. The kernel's own backward is correct for the earlier positions if it is
given `joint_lse` and the joint output.
Shapes: B sequences, H heads, T tokens, K channels of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.block_pool import empty_like
from wirework.nn.kernels.attention import (
    attention_with_sink_key,
    fused,
    fused_backward,
    narrow_is_faster,
    window_bias,
)
from wirework.nn.kernels.narrow_attention import narrow_attention


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
    """Attend to earlier tokens of one stream and to the own position of another.

    Args:
        q: (B, H, T, K) queries of the ablated stream.
        k, v: (B, H, T, K) of the clean stream; those at t are read by tokens after t.
        own_k, own_v: (B, H, T, K) of the ablated stream; those at t are read by the token at t.
        sink, scale, window: as in `causal_attention`.

    Returns:
        (B, H, T, K) in the dtype of `q`.

    Source: Ferrao et al. 2025 (two residual streams).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if q.device.type != "cpu":
        return _over_both(q, k, v, own_k, own_v, sink, scale, window)
    with torch.autocast("cpu", enabled=False):  # it would round the log-sum-exp to bf16
        if narrow_is_faster(q, scale):
            return narrow_attention(q, k, v, (own_k, own_v), sink, scale, window)
        out: Tensor = _OwnPosition.apply(q, k, v, own_k, own_v, sink, scale, window)  # type: ignore[no-untyped-call]
    return out


class _OwnPosition(torch.autograd.Function):
    """Computes in the layout (B, T, H, K) of the projections, to read memory in order."""

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
        q, k, v, own_k, own_v = (t.transpose(1, 2).to(compute) for t in (q, k, v, own_k, own_v))
        own_score = torch.linalg.vecdot(q, own_k).mul_(scale)  # (B, T, H)
        joint_lse = (
            own_score.clone() if sink is None else torch.logaddexp(own_score, sink.to(compute))
        )
        ctx.sees_past = q.shape[1] > 1 and window != 1
        ctx.bias = _past_bias(q, window) if ctx.sees_past else None
        if not ctx.sees_past:
            y = own_v * (own_score - joint_lse).exp_().unsqueeze(-1)
        else:
            queries, keys, values = _swapped(_next(q), k, v)
            past_y, past_lse = _swapped(*fused(queries, keys, values, ctx.bias, scale))
            joint_lse[:, 1:] = torch.logaddexp(past_lse[:, :-1], joint_lse[:, 1:])
            y = own_v * (own_score - joint_lse).exp_().unsqueeze(-1)
            share = (past_lse[:, :-1] - joint_lse[:, 1:]).exp_().unsqueeze(-1)
            y[:, 1:].addcmul_(past_y[:, :-1], share)
        ctx.save_for_backward(q, k, v, own_k, own_v, y, joint_lse, own_score, sink)
        lowered: Tensor = y.to(ctx.dtype).transpose(1, 2)
        return lowered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, own_k, own_v, y, joint_lse, own_score, sink = ctx.saved_tensors
        grad = grads[0].transpose(1, 2).to(q.dtype)
        share, level = (own_score - joint_lse).exp_(), torch.linalg.vecdot(grad, y)
        gain = torch.linalg.vecdot(grad, own_v).sub_(level)
        to_score = gain.mul_(share).mul_(ctx.scale).unsqueeze(-1)
        to_q, to_own_k, to_own_v = to_score * own_k, to_score * q, share.unsqueeze(-1) * grad
        to_k, to_v = torch.zeros_like(k), torch.zeros_like(v)
        if ctx.sees_past:
            next_grad, queries, out, past_lse = _swapped(
                *(_next(t) for t in (grad, q, y, joint_lse))
            )
            keys, values = _swapped(k, v)
            from_past, to_k, to_v = _swapped(
                *fused_backward(
                    next_grad, queries, keys, values, out, past_lse, ctx.bias, ctx.scale
                )
            )
            to_q[:, 1:] += from_past[:, :-1]
        to_sink = None
        if sink is not None:  # a key with value zero
            sink_loss = (sink.to(joint_lse.dtype) - joint_lse).exp_() * level
            to_sink = -sink_loss.sum((0, 1)).to(sink.dtype)
        gradients = _swapped(to_q, to_k, to_v, to_own_k, to_own_v)
        lowered = (t.to(ctx.dtype) for t in gradients)
        return (*lowered, to_sink, None, None)


def _over_both(
    q: Tensor, k: Tensor, v: Tensor, own_k: Tensor, own_v: Tensor,
    sink: Tensor | None, scale: float, window: int | None,
) -> Tensor:  # fmt: skip
    """Attend to concatenated keys of both streams, where the kernel returns no log-sum-exp."""
    length, device = q.shape[-2], q.device
    past = torch.ones(length, length, dtype=torch.bool, device=device).tril(-1)
    past = past if window is None else past.triu(1 - window)
    sees = torch.cat([past, torch.eye(length, dtype=torch.bool, device=device)], -1)
    keys, values = torch.cat([k, own_k], -2), torch.cat([v, own_v], -2)
    return attention_with_sink_key(q, keys, values, sink, scale, sees)


def _next(t: Tensor) -> Tensor:
    """Return the values of the next token at each position, (B, T, ...), zeros at the last.

    Causal attention of the shifted queries covers the tokens strictly before their own. The length
    stays T because the kernel is slower at T - 1; the output of the last query is not used, and its
    gradient is zero.
    """
    moved = empty_like(t)
    moved[:, :-1], moved[:, -1] = t[:, 1:], 0
    return moved


def _swapped(*parts: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.transpose(1, 2) for part in parts)


def _past_bias(q: Tensor, window: int | None) -> Tensor | None:
    """Return the (T, T) bias for the earlier positions of a window; None if all are visible."""
    length = q.shape[1]
    if window is None or window - 1 >= length:
        return None
    return window_bias(length, window - 1, q.device).to(q.dtype)
