"""Deciding tokens: those in which a prompt differs from the other prompt of its pair.

Shapes: P pairs, T tokens of the longest prompt.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wirework.tasks.task import TokenizedPairs


def deciding_tokens(batch: TokenizedPairs) -> Tensor:
    """Return (2P, T) bool, True at tokens outside the common prefix and suffix of a pair's prompts.

    If a prompt is the other one without some tokens, the token after the gap counts, or its last
    token if the gap is at the end.
    """
    mask = torch.zeros(batch.tokens.shape, dtype=torch.bool, device=batch.tokens.device)
    ends = (batch.last_positions + 1).tolist()
    prompts = [ids[:end] for ids, end in zip(batch.tokens.tolist(), ends, strict=True)]
    for first in range(0, len(prompts), 2):
        for row, other in ((first, first + 1), (first + 1, first)):
            start, end = between(prompts[row], prompts[other])
            start = min(start, len(prompts[row]) - 1)
            mask[row, start : max(end, start + 1)] = True
    return mask


def between(ids: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """Return start and end of the part of `ids` outside the common prefix and suffix.

    Args:
        ids: tokens of a prompt.
        other: tokens of the prompt that it is compared with.
    """
    shorter = min(len(ids), len(other))
    n_prefix = next((i for i in range(shorter) if ids[i] != other[i]), shorter)
    n_rest = shorter - n_prefix
    n_suffix = next((i for i in range(n_rest) if ids[-1 - i] != other[-1 - i]), n_rest)
    return n_prefix, len(ids) - n_suffix
