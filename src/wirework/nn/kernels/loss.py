"""Next-token loss computed from the final state, without storing the logits of the whole batch.

Logits of a few hundred tokens are computed, turned into loss and gradient, and discarded. The peak
memory is one such piece, and softmax and its gradient run in cache. A piece has as many tokens as
the state has channels, so that its logits are as large as the gradient of the weight.
Shapes: N tokens, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.live_weight import LiveWeight
from wirework.nn.kernels.products import fit, product
from wirework.nn.kernels.sparse_linear import CompressedRows, compressed_if_faster
from wirework.nn.kernels.sparse_loss import LossAndGradients, Wanted, sparse_loss

_PIECES = (128, 512)  # fewest and most tokens of a piece: 1 to 4 MB at a vocabulary of 2048
_DEVICE_LOGITS = 1 << 25  # most logits of a piece on a GPU, which needs few large kernels: 128 MB


def next_token_loss(
    state: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bigram: Tensor | None = None,
    tokens: Tensor | None = None,
    bias: Tensor | None = None,
    live: LiveWeight | None = None,
) -> Tensor:
    """Return the mean cross-entropy of `state @ weight.T + bias + bigram[tokens]`.

    Args:
        state: (N, D), any floating-point type; the matrix products have its dtype.
        weight: (V, D) unembedding.
        targets: (N,) int64.
        bigram: (V, V) logits for each current token; needs `tokens`.
        tokens: (N,) int64 current tokens.
        bias: (V,) bias of the logits.
        live: trained entries of `weight`, which get the gradient in its place; None for all.

    Returns:
        Scalar float32 (float64 for a float64 state), nats per token. Softmax and sum are computed
        in that dtype.

    Raises:
        ValueError: only one of `bigram` and `tokens`.

    Source: Gao et al. 2025, App. A.2 (float32 loss).
    """
    if (bigram is None) != (tokens is None):
        raise ValueError("give both bigram and tokens, or neither")
    entries: Tensor | None = None if live is None else live.values
    rows = _compressed(state, weight, live)  # before detach: a known weight is known by identity
    if not torch.is_grad_enabled():  # autograd would still report that gradients are needed
        entries = None if entries is None else entries.detach()
        state, weight = state.detach(), weight.detach()
        bigram = None if bigram is None else bigram.detach()
        bias = None if bias is None else bias.detach()
    loss: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
        state, weight, entries, targets, bigram, tokens, bias, live, rows
    )
    return loss


def _piece(state: Tensor, vocab: int) -> int:
    """Return the number of tokens whose logits are in memory at once."""
    if state.device.type != "cpu":
        return max(_PIECES[1], _DEVICE_LOGITS // vocab)
    return min(max(state.shape[1], _PIECES[0]), _PIECES[1])


class _Loss(torch.autograd.Function):
    """Computes the gradients in the forward pass, where the logits are in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        state: Tensor,
        weight: Tensor,
        entries: Tensor | None,
        targets: Tensor,
        bigram: Tensor | None,
        tokens: Tensor | None,
        bias: Tensor | None,
        live: LiveWeight | None,
        rows: CompressedRows | None,
    ) -> Tensor:
        graded = (state, weight if entries is None else entries, bigram, bias)
        needs_gradient = [t is not None and need for t, need in zip(
            graded,
            (ctx.needs_input_grad[i] for i in (0, 1 if entries is None else 2, 4, 6)),
            strict=True,
        )]  # fmt: skip
        ctx.is_live = entries is not None
        if rows is not None:
            result = _from_rows(state, rows, targets, bigram, tokens, bias, live, needs_gradient)
            ctx.save_for_backward(result.state, result.weight, result.bigram, result.bias)
            return result.loss
        lowered = weight.to(state.dtype)
        to_state, to_weight, to_bigram, to_bias = (
            torch.zeros_like(t) if t is not None and needed else None
            for t, needed in zip(graded, needs_gradient, strict=True)
        )
        compute = torch.promote_types(state.dtype, torch.float32)
        total = torch.zeros((), device=state.device, dtype=compute)
        count = len(targets)
        step = _piece(state, len(weight))
        for start in range(0, count, step):
            piece = slice(start, start + step)
            logits = product(state[piece], lowered.t()).to(compute)
            if bigram is not None and tokens is not None:
                logits += bigram.index_select(0, tokens[piece])  # several times faster than []
            if bias is not None:
                logits += bias
            aims = targets[piece].unsqueeze(1)
            logits -= logits.amax(1, keepdim=True)
            total -= logits.gather(1, aims).sum()
            odds = logits.exp_()  # used for the loss and for the gradient
            sums = odds.sum(1, keepdim=True)
            total += sums.log().sum()
            if not any(needs_gradient):
                continue
            slope = odds.div_(sums.mul_(count))  # softmax, then minus one at the target, over N
            slope.scatter_add_(1, aims, slope.new_full(aims.shape, -1 / count))
            if to_bigram is not None and tokens is not None:
                to_bigram.index_add_(0, tokens[piece], slope.to(to_bigram.dtype))
            if to_bias is not None:
                to_bias += slope.sum(0)
            slope = slope.to(state.dtype)
            if to_state is not None:
                to_state[piece] = product(slope, lowered)
            if to_weight is not None:
                to_weight += product(slope.t(), state[piece])
        ctx.save_for_backward(to_state, to_weight, to_bigram, to_bias)
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_state, to_weight, to_bigram, to_bias = (
            None if t is None else t.mul_(grads[0].to(t.dtype)) for t in ctx.saved_tensors
        )
        of_weight = (None, to_weight) if ctx.is_live else (to_weight, None)
        return to_state, *of_weight, None, to_bigram, None, to_bias, None, None


def _compressed(state: Tensor, weight: Tensor, live: LiveWeight | None) -> CompressedRows | None:
    """Return the compressed rows of the weight, or None for dense products."""
    if live is not None:
        return live.nonzero_rows
    return compressed_if_faster(weight) if fit(state, weight) else None


def _from_rows(
    state: Tensor,
    rows: CompressedRows,
    targets: Tensor,
    bigram: Tensor | None,
    tokens: Tensor | None,
    bias: Tensor | None,
    live: LiveWeight | None,
    needs_gradient: list[bool],
) -> LossAndGradients:
    """Return the loss from compressed rows; `weight` is the gradient of what is trained of it."""
    to_state, to_weight, to_bigram, to_bias = needs_gradient
    entries = live.rows if live is not None and to_weight and not live.is_exploring else None
    wanted = Wanted(to_state, to_weight and entries is None, entries, to_bigram, to_bias)
    result = sparse_loss(
        state, rows, targets, bigram=bigram, tokens=tokens, bias=bias, wanted=wanted
    )
    if result.entries is not None:
        return result._replace(weight=result.entries)
    if live is not None and result.weight is not None:
        return result._replace(weight=live.explore(result.weight))
    return result
