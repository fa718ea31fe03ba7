"""Deciding tokens: those in which a prompt differs from the other prompt of its pair.

Shapes: P pairs, T tokens of the longest prompt.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wirework.tasks.task import TokenizedPairs

_MOST_CELLS = 1 << 16
"""Product of the lengths of two spans up to which shared tokens are looked for: 0.1 s a prompt."""


def deciding_tokens(batch: TokenizedPairs) -> Tensor:
    """Return (2P, T) bool, True at tokens outside the common prefix and suffix of a pair's prompts.

    Tokens between these that both prompts share in the same order do not count: where two types are
    exchanged, the name between them decides nothing. In spans of hundreds of tokens they do count.
    If a prompt is the other one without some tokens, the token after the gap counts, or its last
    token if the gap is at the end.
    """
    mask = torch.zeros(batch.tokens.shape, dtype=torch.bool, device=batch.tokens.device)
    ends = (batch.last_positions + 1).tolist()
    prompts = [ids[:end] for ids, end in zip(batch.tokens.tolist(), ends, strict=True)]
    for first in range(0, len(prompts), 2):
        for row, other in ((first, first + 1), (first + 1, first)):
            start, end = between(prompts[row], prompts[other])
            part = prompts[row][start:end]
            shared = _shared(part, prompts[other][slice(*between(prompts[other], prompts[row]))])
            start = min(start, len(prompts[row]) - 1)
            mask[row, start : max(end, start + 1)] = True
            if len(shared) < len(part):
                mask[row, [start + place for place in shared]] = False
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


def _shared(ids: Sequence[int], other: Sequence[int]) -> list[int]:
    """Return the places in `ids` of the longest common subsequence with `other`.

    Of equally long ones, it is that whose tokens stand at the most similar places; none for spans
    so long that the search would take seconds.
    """
    if len(ids) * len(other) > _MOST_CELLS:
        return []
    # best[i][j], of ids[i:] and other[j:]: the length times `one`, minus the displacements.
    one = len(ids) * len(other) * max(len(ids), len(other)) + 1
    best = [[0] * (len(other) + 1) for _ in range(len(ids) + 1)]
    for i in reversed(range(len(ids))):
        for j in reversed(range(len(other))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1])
            if ids[i] == other[j]:
                best[i][j] = max(best[i][j], best[i + 1][j + 1] + one - abs(i - j))
    places, i, j = [], 0, 0
    while i < len(ids) and j < len(other):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            places.append(i)
            i, j = i + 1, j + 1
    return places
