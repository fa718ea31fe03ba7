"""How well a model predicts held-out text."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from wirework.measures.text import held_out

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True)
class Language:
    """How well a model predicts text."""

    loss: float
    """Mean next-token cross-entropy of the plain model, nats per token."""
    perplexity: float
    """exp(loss): among how many equally likely tokens the model is left to guess."""
    n_tokens: int
    """Tokens it was measured on."""


@torch.no_grad()
def language(model: "Model", text: "Tokens", n_tokens: int = 65_536) -> Language:
    """Measure a model's loss, of the clean stream where it has gates.

    Args:
        model: the model.
        text: tokens, of the held-out split as a rule.
        n_tokens: how many to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.

    Source: Ferrao et al. 2025 (perplexity).
    """
    device = model.transformer.embed.weight.device
    batches = held_out(text, model.config.n_ctx, n_tokens)
    losses = [
        model.transformer.loss(inputs.to(device), targets.to(device)) for inputs, targets in batches
    ]
    loss = float(torch.stack(losses).double().mean())
    return Language(loss, math.exp(loss), sum(inputs.numel() for inputs, _ in batches))
