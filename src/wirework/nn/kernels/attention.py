"""Causal attention with an optional sink, fused: no (T, T) tensor outlives its tile.

A sink is a learned logit per head that enters only the softmax denominator, the same as one more
key of zeros whose value is zero (Gao et al. 2025, App. A.1). From the log-sum-exp that a fused
kernel returns it has a closed form: output times exp(lse - lse'), lse' = log(exp(lse) + exp(sink)).
Given lse' and that output, the kernel's own backward is the right backward.
Shapes: B sequences, H heads, T tokens, K channels of a head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels import tiled_attention


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sink: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Attend to the tokens up to one's own.

    Args:
        q: (B, H, T, K) queries.
        k: (B, H, T, K) keys.
        v: (B, H, T, K) values.
        sink: (H,) logits that draw attention to nothing; None for none.
        scale: of the scores; None for 1/sqrt(K).
        window: how many positions a token sees, itself included; None for all.

    Returns:
        (B, H, T, K) in the dtype of `q`.

    Source: Gao et al. 2025, App. A.1 (sinks); Ferrao et al. 2025, sec. 2 (scale, windows).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    window = None if window is not None and window >= q.shape[-2] else window
    if q.device.type == "cpu":
        mask = None if window is None else window_bias(q.shape[-2], window, q.device)
        with torch.autocast("cpu", enabled=False):  # it would round the scores to bf16
            out: Tensor = _CpuAttention.apply(q, k, v, sink, scale, mask)  # type: ignore[no-untyped-call]
        return out
    if sink is None and window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return attention_with_sink_key(q, k, v, sink, scale, _sees(q.shape[-2], window, q.device))


def attention_at(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    at: Tensor,
    *,
    sink: Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Do what `causal_attention` does for one token of each sequence alone.

    Args:
        q: (B, H, 1, K), of the token at `at`.
        k, v: (B, H, T, K).
        at: (B,) int64, its position.
        sink, scale, window: as `causal_attention` takes them.

    Returns:
        (B, H, 1, K) in the dtype of `q`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    places = torch.arange(k.shape[-2], device=k.device)
    sees = places <= at[:, None]
    if window is not None:
        sees &= places > at[:, None] - window
    scores = (q * scale) @ k.transpose(-1, -2)
    scores = scores.masked_fill(~sees[:, None, None], -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink[:, None, None].expand(len(q), -1, 1, 1)], -1)
    return scores.softmax(-1)[..., : k.shape[-2]] @ v


def causal_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float, window: int | None
) -> Tensor:
    """Do what `causal_attention` does by its definition, with all scores written out."""
    scores = (q @ k.transpose(-1, -2)) * scale
    scores = scores.masked_fill(~_sees(q.shape[-2], window, q.device), -torch.inf)
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
        bias: (T, T) to add to the scores, -inf where a token does not look; None for causal.
        scale: of the scores.
    """
    if tiled_attention.is_faster(q):
        return tiled_attention.tiled(q, k, v, bias, scale)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, bias is None, attn_mask=bias, scale=scale
    )
    return out, lse


def fused_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor,
    out: Tensor, lse: Tensor, bias: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients of q, k and v given what came out and its log-sum-exp.

    Both may be those of a softmax over more than these keys: then it is their share of it.
    """
    if tiled_attention.is_faster(q):
        return tiled_attention.tiled_backward(grad, q, k, v, out, lse, bias, scale)
    to_q, to_k, to_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, q, k, v, out, lse, 0.0, bias is None, attn_mask=bias, scale=scale
    )
    return to_q, to_k, to_v


class _CpuAttention(torch.autograd.Function):
    """In float32 or wider: at small heads the bf16 kernel's backward is 2 to 5 times slower."""

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
            # The sink is a key of probability exp(sink - lse) whose value, zero, gains nothing.
            share = (sink.to(lse.dtype)[:, None] - lse).exp_()
            to_sink = -(share * torch.linalg.vecdot(grad, out)).sum((0, 2)).to(sink.dtype)
        return (*(t.to(ctx.dtype) for t in to_qkv), to_sink, None, None)


def attention_with_sink_key(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, scale: float, sees: Tensor
) -> Tensor:
    """Attend where `sees`, (T, S) bool, says, in one kernel: the sink as a key in its own channel.

    For devices whose fused kernel gives no log-sum-exp.
    """
    if sink is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=scale)
    # q gets a channel of ones that only the sink's key reads; v a channel that is cut off again.
    key = F.pad(k, (0, 1, 1, 0))
    first = (sink / scale).to(k.dtype)[None, :, None].expand(k.shape[0], -1, 1)
    key = torch.cat([torch.cat([key[..., :1, :-1], first.unsqueeze(-1)], -1), key[..., 1:, :]], -2)
    query = F.pad(q, (0, 1), value=1.0)
    out = F.scaled_dot_product_attention(
        query,
        key,
        F.pad(v, (0, 1, 1, 0)),
        attn_mask=F.pad(sees, (1, 0), value=True),
        scale=scale,
    )
    return out[..., :-1]


def _sees(length: int, window: int | None, device: torch.device) -> Tensor:
    """(T, T) bool, True where the row's token may look at the column's."""
    sees = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return sees if window is None else sees.triu(1 - window)


def window_bias(length: int, window: int, device: torch.device) -> Tensor:
    """Return (T, T) float32, 0 where the row's token sees the column's and -inf elsewhere."""
    return torch.zeros(length, length).masked_fill_(~_sees(length, window, device), -torch.inf)


def _as(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if mask is None else mask.to(dtype)
