"""The training text of a model, and windows of it: where ablation values are measured.

The text is that of the run that trained the model, unless the caller gives one.
Shapes: B sequences.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.files import is_file
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model

_BATCH = 16
"""Sequences per batch of `training_windows`."""
_TOKENS = 4096
"""Tokens per forward pass."""


def training_text_of(model: "Model", data: "Tokens | None") -> "Tokens":
    """Return the given training text, or that of the run whose folder contains the model.

    Args:
        model: the model.
        data: training text; None for that of the run.

    Raises:
        InputError: there is neither.
    """
    return run_tokens(model) if data is None else data


def run_tokens(model: "Model") -> "Tokens":
    """Return the training tokens of the run whose folder contains a model.

    Raises:
        InputError: as for `run_data`.
    """
    return run_data(model, "means of its nodes or their values").train


def run_data(model: "Model", purpose: str) -> "Prepared":
    """Return the corpus of the run whose folder contains a model.

    Args:
        model: the model.
        purpose: what needs the corpus, a plural noun for the error message.

    Raises:
        InputError: the model is outside a run folder, or the run's text is missing, damaged or
            changed.
    """
    from wirework.data import prepare, text_of_run
    from wirework.data.answers import answers_before_records
    from wirework.data.run_text import prepared_before
    from wirework.training.run_folder import read_settings

    settings = None if model.path is None else Path(model.path).parent / "config.yaml"
    if settings is None or not is_file(settings):
        raise InputError(
            "no training text for this model, which is outside a run folder, and "
            f"{purpose} need it: give text (--corpus; from Python, data, made by "
            "prepare(config.data))"
        )
    saved = read_settings(settings.parent).data
    data = text_of_run(settings.parent)
    trained_on = _trained_on(settings.parent)
    if data is None and trained_on is not None:  # written by a version that kept no record
        data = prepared_before(settings.parent, saved, trained_on)
    if data is None:
        for corpus in (saved.corpus, saved.mix):
            refuse_saved_function(corpus, f"{settings} names as text", "--corpus")
        data = prepare(answers_before_records(saved))
    same_tokenizer = (
        model.tokenizer is not None and data.tokenizer.fingerprint == model.tokenizer.fingerprint
    )
    if not same_tokenizer or trained_on not in (None, data.fingerprint):
        raise InputError(
            f"the corpus of {settings.parent} has changed since the model was trained, and "
            f"{purpose} need it: give text"
        )
    return data


def _trained_on(run: Path) -> str | None:
    """Return the data fingerprint in the newest readable checkpoint of a run; None without one.

    Damaged checkpoints are skipped, as in training.
    """
    from wirework.training.checkpoint import newest_state

    state = newest_state(run / "checkpoints")
    return None if state is None else state.data


def training_windows(tokens: "Tokens", n_ctx: int, n_batches: int) -> Iterator[Tensor]:
    """Yield batches of windows that are spread evenly over a corpus; they may overlap.

    Args:
        tokens: the corpus.
        n_ctx: tokens per window; a corpus with fewer tokens is a single window, repeated.
        n_batches: number of batches.

    Yields:
        (16, min(n_ctx, tokens of the corpus)) int64.
    """
    n_ctx = min(n_ctx, tokens.n_tokens)
    count = n_batches * _BATCH
    starts = torch.linspace(0, tokens.n_tokens - n_ctx, count, dtype=torch.float64).long()
    for batch_starts in starts.view(n_batches, _BATCH).tolist():
        yield _windows(tokens, batch_starts, n_ctx)


def disjoint_windows(tokens: "Tokens", n_ctx: int, count: int) -> tuple[list[int], list[int]]:
    """Return the start positions of two samples of evenly spread, non-overlapping windows.

    Args:
        tokens: the text.
        n_ctx: tokens per window, at most the tokens of the text.
        count: windows per sample. If the text is too short, each sample gets half of its windows;
            a text of a single window belongs to the first sample.

    Returns:
        The first token of each window of the first sample, and of the second.
    """
    n_windows = min(2 * count, tokens.n_tokens // n_ctx)
    last_start = tokens.n_tokens - n_ctx
    starts = torch.linspace(0, last_start, n_windows, dtype=torch.float64).long().tolist()
    return starts[0::2], starts[1::2]


def windows_at(tokens: "Tokens", starts: Sequence[int], n_ctx: int) -> Iterator[Tensor]:
    """Yield the windows that begin at given tokens, in batches for one forward pass each.

    Args:
        tokens: the text.
        starts: first token of each window.
        n_ctx: tokens per window.

    Yields:
        (B, n_ctx) int64.
    """
    size = max(1, _TOKENS // n_ctx)
    for first in range(0, len(starts), size):
        yield _windows(tokens, starts[first : first + size], n_ctx)


def _windows(tokens: "Tokens", starts: Sequence[int], n_ctx: int) -> Tensor:
    """Return the windows that begin at `starts`, (B, n_ctx) int64."""
    return torch.stack(
        [torch.from_numpy(tokens.slice(start, n_ctx).astype("int64")) for start in starts]
    )
