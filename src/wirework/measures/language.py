"""Loss and perplexity of a model on held-out text."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wirework.measures.text_evaluation import TextStats, evaluate_text
from wirework.summaries import Report

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True, repr=False)
class Language(Report):
    """Loss and perplexity of a model on text."""

    loss: float
    """Mean next-token cross-entropy of the plain model, nats per token."""
    perplexity: float
    """exp(loss): the number of equally likely tokens that would give the same loss."""
    n_tokens: int
    """Tokens that were read."""

    @classmethod
    def of(cls, stats: TextStats) -> "Language":
        """Return the loss and perplexity of one pass over text."""
        return cls(stats.loss, math.exp(stats.loss), stats.n_tokens)


def language(model: "Model | str | Path", text: "Tokens", n_tokens: int = 65_536) -> Language:
    """Measure a model's loss; with gates, the loss of the clean stream.

    Args:
        model: the model; a path is loaded.
        text: tokens, usually of the held-out split.
        n_tokens: number of tokens to read, in windows of n_ctx.

    Raises:
        InputError: the text is shorter than a window.

    Source: Ferrao et al. 2025 (perplexity).
    """
    from wirework.model import load

    return Language.of(evaluate_text(load(model), text, n_tokens))
