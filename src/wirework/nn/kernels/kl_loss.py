"""KL divergence from given next-token probabilities to those of states, without storing the logits.

As in `loss.py`, the logits of some hundred tokens are computed, turned into loss and gradient, and
discarded. Here each token has several states, and all are compared with the same probabilities.
Shapes: R states of each token, N tokens, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wirework.nn.kernels.linear import Linear

_PIECE = 256
"""Tokens whose logits are in memory at once: 2 MB at a vocabulary of 2048."""


def kl_loss(
    log_probs: Tensor,
    states: Tensor,
    unembed: Linear,
    offsets: Tensor | None = None,
    coef: float = 1.0,
) -> Tensor:
    """Return the KL divergences from given probabilities to those of the states, summed over R.

    The gradient is computed in the forward pass, where the logits are in memory.

    Args:
        log_probs: (N, V) log-probabilities to compare with; they get no gradient.
        states: (R, N, D) final normalised states.
        unembed: the unembedding, without a bias.
        offsets: (N, V) that are added to the logits of every state, such as a bigram table's rows.
        coef: coefficient of the result. A factor from outside would not reach the gradients that
            live weights keep for the choice of their candidates.

    Returns:
        Scalar: `coef` times the sum over R of KL(given || state), mean over N tokens,
        in nats.

    Source: Gao et al. 2025, App. A.3.
    """
    weight = unembed.weight if unembed.live is None else unembed.live.values
    if not torch.is_grad_enabled():
        states, weight = states.detach(), weight.detach()
        offsets = None if offsets is None else offsets.detach()
    total: Tensor = _KL.apply(log_probs, states, weight, offsets, unembed, coef)  # type: ignore[no-untyped-call]
    return total


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_probs: Tensor,
        states: Tensor,
        weight: Tensor,
        offsets: Tensor | None,
        unembed: Linear,
        coef: float,
    ) -> Tensor:
        graded = (states, weight, offsets)
        to_states, to_weight, to_offsets = (
            torch.zeros_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip(graded, ctx.needs_input_grad[1:4], strict=True)
        )
        wanted = any(ctx.needs_input_grad)
        count = len(log_probs)
        total = torch.zeros((), device=states.device, dtype=torch.float64)
        for start in range(0, count, _PIECE):
            piece = slice(start, start + _PIECE)
            probs = log_probs[piece].exp()
            total += len(states) * torch.dot(probs.flatten(), log_probs[piece].flatten())
            for index, state in enumerate(states[:, piece]):
                with torch.set_grad_enabled(wanted):
                    leaf = state.detach().requires_grad_(wanted)
                    raw = unembed(leaf)
                logits = raw.detach().to(log_probs.dtype)
                if offsets is not None:
                    logits = logits + offsets[piece]
                log_q = logits.log_softmax(1)
                total -= torch.dot(probs.flatten(), log_q.flatten())
                if not wanted:
                    continue
                slope = log_q.exp_().sub_(probs).mul_(coef / count)
                if to_offsets is not None:
                    to_offsets[piece] += slope
                inputs = [leaf] if to_weight is None else [leaf, weight]
                to_leaf, *rest = torch.autograd.grad(raw, inputs, slope.to(raw.dtype))
                if to_states is not None:
                    to_states[index, piece] = to_leaf
                if to_weight is not None:
                    to_weight += rest[0]
        ctx.save_for_backward(to_states, to_weight, to_offsets)
        return (total * (coef / count)).to(log_probs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if t is None else t.mul_(grads[0].to(t.dtype)) for t in ctx.saved_tensors)
        return None, *gradients, None, None
