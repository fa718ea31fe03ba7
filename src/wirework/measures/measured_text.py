"""The text that a model is measured on: by default that of its training run.

Shapes: B sequences, T tokens.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.masking.training_text import run_data
from wirework.data.batches import Batches, eval_batches
from wirework.errors import InputError

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

_TOKENS = 4096
"""About how many tokens go through a model in one batch."""


def prepared_text(model: "Model | str | Path", data: "Prepared | None") -> "Prepared":
    """Return the text to measure a model on, checked against the model's tokeniser.

    Args:
        model: the model; a path is loaded.
        data: prepared text; None: the text of the run that the model lies in.

    Raises:
        InputError: the model is outside a run folder, or the text was prepared with another
            tokeniser.
    """
    from wirework.model import load

    model = load(model)
    if data is None:
        return run_data(model, "measures of what it does with text")
    tokenizer = model.tokenizer
    if tokenizer is not None and data.tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(f"{data.path} was prepared with another tokeniser than the model's")
    return data


def fixed_windows(tokens: "Tokens", n_ctx: int, n_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Return the same evenly spread windows of a split at every call.

    Args:
        tokens: the split, usually the held-out one.
        n_ctx: tokens of a window.
        n_tokens: about how many tokens to take in all; at least one window, at most the split.

    Returns:
        Inputs and targets, (B, T) int64 each, all batches of one shape.

    Raises:
        InputError: the split is too short for one window.
    """
    rows = max(1, min(_TOKENS, n_tokens) // n_ctx)
    batches = eval_batches(tokens, n_ctx, rows, max(1, n_tokens // (rows * n_ctx)))
    return [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in batches]


def shuffled_windows(tokens: "Tokens", n_ctx: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (B, n_ctx) int64 of windows in random order, epoch after epoch, forever.

    Raises:
        InputError: the split is too short for one window.
    """
    batches = Batches(tokens, n_ctx, max(1, _TOKENS // n_ctx), seed)
    for step in count():
        yield torch.from_numpy(batches.at(step)[0])
