"""How well a model predicts held-out text."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wirework.measures.text_evaluation import TextStats, evaluate_text

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

    @classmethod
    def of(cls, stats: TextStats) -> "Language":
        """Take what one pass saw."""
        return cls(stats.loss, math.exp(stats.loss), stats.n_tokens)


def language(model: "Model | str | Path", text: "Tokens", n_tokens: int = 65_536) -> Language:
    """Measure a model's loss, of the clean stream where it has gates.

    Args:
        model: the model; a path is loaded.
        text: tokens, of the held-out split as a rule.
        n_tokens: how many to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.

    Source: Ferrao et al. 2025 (perplexity).
    """
    from wirework.model import load

    return Language.of(evaluate_text(load(model), text, n_tokens))
