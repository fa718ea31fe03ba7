"""The distinct prefixes of a batch of prompts: a causal model has one state per prefix and layer.

Prompts of a task share their beginnings, and shorter prompts are padded. The state of a token
depends on the tokens up to it alone, so each distinct prefix is computed once. Before the first
attention it depends on the token (and its position) alone.

Shapes: B prompts, T tokens, U distinct prefixes, E distinct tokens.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wirework.tasks import TokenizedPairs


class Prefixes(NamedTuple):
    """The distinct prefixes of a batch."""

    prompt_rows: Tensor
    """(B, T) int64, prefix that ends at each token; 0 after a prompt's end."""
    ancestors: Tensor
    """(U, T) int64, prefix of each length of a prefix, from its first token to itself; then 0."""
    positions: Tensor
    """(U,) int64, position of the last token of each prefix."""
    last: Tensor
    """(B,) int64, prefix that is the whole prompt."""
    entries: Tensor
    """(U,) int64, index of the last token of each prefix among the distinct tokens."""
    entry_tokens: Tensor
    """(E,) int64, the distinct tokens."""
    entry_positions: Tensor
    """(E,) int64, their positions; 0 if positions do not count."""

    @classmethod
    def of(cls, batch: TokenizedPairs, *, positions_count: bool) -> "Prefixes":
        """Find the distinct prefixes of a batch on the CPU.

        Args:
            batch: tokenised pairs.
            positions_count: whether a token at another position is another input of the model.
        """
        tokens, last_positions = batch.tokens.numpy(), batch.last_positions.numpy()
        order = np.lexsort(tokens.T[::-1])  # neighbours have the longest common prefixes
        in_prompt = np.arange(tokens.shape[1]) <= last_positions[order, None]
        is_new = in_prompt & ~_shared(tokens[order], in_prompt)
        rows = np.cumsum(is_new.ravel()).reshape(is_new.shape) - 1
        # A shared prefix has the number it got where it was new: the latest above it.
        rows = np.maximum.accumulate(np.where(is_new, rows, 0), axis=0) * in_prompt
        prompt_rows = np.empty_like(rows)
        prompt_rows[order] = rows
        prompt, positions = is_new.nonzero()
        ancestors = rows[prompt] * (np.arange(tokens.shape[1]) <= positions[:, None])
        key = tokens[order][prompt, positions] * tokens.shape[1] + positions * positions_count
        keys, entries = np.unique(key, return_inverse=True)
        return cls(
            prompt_rows=torch.from_numpy(prompt_rows),
            ancestors=torch.from_numpy(ancestors),
            positions=torch.from_numpy(positions),
            last=torch.from_numpy(prompt_rows[np.arange(len(tokens)), last_positions]),
            entries=torch.from_numpy(entries.ravel()),
            entry_tokens=torch.from_numpy(keys // tokens.shape[1]),
            entry_positions=torch.from_numpy(keys % tokens.shape[1]),
        )


def _shared(tokens: NDArray[np.int64], in_prompt: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (B, T) bool: the prefix that ends at a token is one of the prompt in the row above."""
    shared = np.zeros(tokens.shape, bool)
    same = (tokens[1:] == tokens[:-1]) & in_prompt[1:] & in_prompt[:-1]
    shared[1:] = np.logical_and.accumulate(same, axis=1)
    return shared
