"""Fused causal attention with an optional sink; no (T, T) tensor is stored.

Compiled kernels compute narrow heads on a CPU (`narrow_attention.py`), torch's kernel the others.

A sink is a learned logit per head that enters only the softmax denominator, like one more key with
value zero (Gao et al. 2025, App. A.1). With the log-sum-exp that a fused kernel returns, the output
with a sink is the output without it times exp(lse - lse'), lse' = log(exp(lse) + exp(sink)).
The kernel's own backward is correct if it is given lse' and that output.
Shapes: B sequences, H heads, T tokens, K channels of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.narrow_attention import is_faster, narrow_attention


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sink: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Compute causal attention: each token attends to itself and earlier tokens.

    Args:
        q: (B, H, T, K) queries.
        k: (B, H, T, K) keys.
        v: (B, H, T, K) values.
        sink: (H,) sink logits; None for none.
        scale: factor on the scores; None for 1/sqrt(K).
        window: number of positions that a token attends to, including itself; None for all.

    Returns:
        (B, H, T, K) in the dtype of `q`.

    Source: Gao et al. 2025, App. A.1 (sinks); Ferrao et al. 2025, sec. 2 (scale, windows).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    window = None if window is not None and window >= q.shape[-2] else window
    if q.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):  # it would round the scores to bf16
            if narrow_is_faster(q, scale):
                return narrow_attention(q, k, v, None, sink, scale, window)
            return _by_torch(q, k, v, sink, scale, window)
    if sink is None and window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return attention_with_sink_key(q, k, v, sink, scale, _visible(q.shape[-2], window, q.device))


def narrow_is_faster(q: Tensor, scale: float) -> bool:
    """Return whether `narrow_attention` is used for queries (B, H, T, K) on the CPU."""
    return is_faster(q, scale, lambda q, k, v: _by_torch(q, k, v, None, scale, None))


def last_position_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    last_positions: Tensor,
    *,
    sink: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Compute causal attention for one token of each sequence.

    Args:
        q: (B, H, 1, K) queries of these tokens.
        k, v: (B, H, T, K) keys and values of all tokens.
        last_positions: (B,) int64 positions of these tokens.
        sink, scale, window: as in `causal_attention`.

    Returns:
        (B, H, 1, K) in the dtype of `q`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    positions = torch.arange(k.shape[-2], device=k.device)
    visible = positions <= last_positions[:, None]
    if window is not None:
        visible &= positions > last_positions[:, None] - window
    scores = (q * scale) @ k.transpose(-1, -2)
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink[:, None, None].expand(len(q), -1, 1, 1)], -1)
    return scores.softmax(-1)[..., : k.shape[-2]] @ v


def causal_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float, window: int | None
) -> Tensor:
    """Compute `causal_attention` by its definition, with all scores in memory."""
    scores = (q @ k.transpose(-1, -2)) * scale
    scores = scores.masked_fill(~_visible(q.shape[-2], window, q.device), -torch.inf)
    if sink is not None:
        column = sink[None, :, None, None].expand(*scores.shape[:-1], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1] @ v
    return scores.softmax(-1) @ v


def fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return causal attention (B, H, T, K) and its log-sum-exp (B, H, T), on a CPU.

    Args:
        q, k, v: (B, H, T, K) float32 or float64.
        bias: (T, T) to add to the scores, -inf where a token must not attend; None for causal.
        scale: factor on the scores.
    """
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, bias is None, attn_mask=bias, scale=scale
    )
    return out, lse


def fused_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, lse: Tensor, bias: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v from the output and its log-sum-exp.

    Output and log-sum-exp may be those of a softmax over more keys than `k`; the result is then the
    part of the gradient that belongs to these keys.
    """
    to_q, to_k, to_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, bias is None, attn_mask=bias, scale=scale
    )
    return to_q, to_k, to_v


def _by_torch(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float, window: int | None
) -> Tensor:
    mask = None if window is None else window_bias(q.shape[-2], window, q.device)
    out: Tensor = _TorchAttention.apply(q, k, v, sink, scale, mask)  # type: ignore[no-untyped-call]
    return out


class _TorchAttention(torch.autograd.Function):
    """Computes in float32 or wider: the bf16 kernel's backward is 2 to 5 times slower here."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sink: Tensor | None,
        scale: float,
        mask: Tensor | None,
    ) -> Tensor:
        ctx.dtype, ctx.scale, ctx.mask = q.dtype, scale, mask
        compute = torch.float64 if q.dtype == torch.float64 else torch.float32
        q, k, v = (t.to(compute) for t in (q, k, v))
        out, lse = fused(q, k, v, _as(mask, compute), scale)
        if sink is not None:
            with_sink = torch.logaddexp(lse, sink.to(lse.dtype)[:, None])
            out = out * (lse - with_sink).exp_().unsqueeze(-1)
            lse = with_sink
        ctx.save_for_backward(q, k, v, out, lse, sink)
        lowered: Tensor = out.to(ctx.dtype)
        return lowered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, sink = ctx.saved_tensors
        grad = grads[0].to(q.dtype)
        to_qkv = fused_backward(grad, q, k, v, out, lse, _as(ctx.mask, q.dtype), ctx.scale)
        to_sink = None
        if sink is not None:
            # The sink is a key with probability exp(sink - lse) and value zero.
            probability = (sink.to(lse.dtype)[:, None] - lse).exp_()
            to_sink = -(probability * torch.linalg.vecdot(grad, out)).sum((0, 2)).to(sink.dtype)
        return (*(t.to(ctx.dtype) for t in to_qkv), to_sink, None, None)


def attention_with_sink_key(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float, visible: Tensor
) -> Tensor:
    """Compute attention in one kernel, with the sink as an additional key in its own channel.

    Used on devices whose fused kernel does not return the log-sum-exp.

    Args:
        q: (B, H, T, K) queries.
        k, v: (B, H, S, K) keys and values.
        sink: (H,) sink logits; None for none.
        scale: factor on the scores.
        visible: (T, S) bool, True where a query attends to a key.
    """
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    # q gets channels of ones, of which only the sink's key uses the first; v gets ones that are
    # removed again. Fused kernels on CUDA need a multiple of 8 channels.
    width = k.shape[-1]
    added = 8 - width % 8
    key = F.pad(k, (0, added, 1, 0))
    key[..., 0, width] = (sink / scale).to(k.dtype)
    out = F.scaled_dot_product_attention(
        F.pad(q, (0, added), value=1.0),
        key,
        F.pad(v, (0, added, 1, 0)),
        attn_mask=F.pad(visible, (1, 0), value=True),
        scale=scale,
    )
    return out[..., :width]


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Return (T, T) bool, True where the row's token attends to the column's token."""
    visible = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return visible if window is None else visible.triu(1 - window)


def window_bias(length: int, window: int, device: torch.device) -> Tensor:
    """Return (T, T) float32, 0 where the row's token attends to the column's, else -inf."""
    return torch.zeros(length, length).masked_fill_(~_visible(length, window, device), -torch.inf)


def _as(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask is None else mask.to(dtype)
