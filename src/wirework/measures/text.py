"""The text that a model is measured on: that of its run, or what is given.

Shapes: B sequences, T tokens.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.circuits.masking.means import run_data
from wirework.data.batches import Batches, eval_batches
from wirework.errors import InputError

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

_TOKENS = 4096
"""About how many go through a model at once."""


def text_of(model: "Model | str | Path", data: "Prepared | None") -> "Prepared":
    """Return the text given, or that of the run which the model, or that at a path, lies in.

    Raises:
        InputError: there is none, or another tokeniser than the model's prepared it.
    """
    from wirework.model import load

    model = load(model)
    if data is None:
        return run_data(model, "measures of what it does with text")
    known = model.tokenizer
    if known is not None and data.tokenizer.fingerprint != known.fingerprint:
        raise InputError(f"{data.path} was prepared with another tokeniser than the model's")
    return data


def held_out(tokens: "Tokens", n_ctx: int, n_tokens: int) -> list[tuple[Tensor, Tensor]]:
    """Return fixed windows spread over a split, about `n_tokens` or all there are.

    Args:
        tokens: the split, held-out as a rule.
        n_ctx: tokens of a window.
        n_tokens: how many to take; at least one window.

    Returns:
        Inputs and targets, (B, T) int64 each, all batches of one shape.

    Raises:
        InputError: the split is too short for one window.
    """
    rows = max(1, min(_TOKENS, n_tokens) // n_ctx)
    batches = eval_batches(tokens, n_ctx, rows, max(1, n_tokens // (rows * n_ctx)))
    return [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in batches]


def shuffled_windows(tokens: "Tokens", n_ctx: int, seed: int) -> Iterator[Tensor]:
    """Yield batches (B, n_ctx) int64 of windows in random order, epoch after epoch, without end.

    Raises:
        InputError: the split is too short for one window.
    """
    batches = Batches(tokens, n_ctx, max(1, _TOKENS // n_ctx), seed)
    for step in count():
        yield torch.from_numpy(batches.at(step)[0])
