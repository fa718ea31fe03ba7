"""Batches of text that are spread over a corpus, small enough for the logits of all tokens."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.masking.training_text import disjoint_windows, windows_at
from wirework.nn import Transformer

if TYPE_CHECKING:
    from wirework.data import Tokens

_MOST_LOGITS = 1 << 24
"""Entries of the logits of a batch: 64 MB in float32."""


def text_batches(
    text: "Tokens", models: Sequence[Transformer], n_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tokens and targets, (B, T) int64 each, evenly spread over a text.

    Args:
        text: the text.
        models: the models that read it; T is their smallest context.
        n_tokens: tokens in all, or fewer if the text is short.
    """
    n_ctx = min(*(model.config.n_ctx for model in models), text.n_tokens - 1)
    most = max(1, _MOST_LOGITS // (n_ctx * max(model.config.vocab_size for model in models)))
    starts, _ = disjoint_windows(text, n_ctx + 1, -(-n_tokens // n_ctx))
    for windows in windows_at(text, starts, n_ctx + 1):
        for rows in torch.split(windows, most):
            yield rows[:, :-1], rows[:, 1:]
