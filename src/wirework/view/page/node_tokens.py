"""Tokens by which a node is named in the drawing, where few are clear.

A node is named by the tokens at which it is active or, failing that, by the answer before which it
is active. Both are facts about the example prompts of a circuit file, not explanations of the node.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wirework.view.visible_text import label

SHARE = 0.8
"""Least share of a node's absolute activation that the tokens of its name carry."""
MOST_TOKENS = 2
"""Most tokens in a name."""
MOST_PLACES = 0.5
"""Largest share of the prompts' tokens that the tokens of a name may be. A node that is equally
active everywhere then has no name, even if the prompts consist of few distinct tokens."""
_MINUS = "\u2212"
"""Minus sign; the hyphen-minus is a common token."""

ActiveAt = list[tuple[str, float]]
"""Tokens and their shares of a node's absolute activation, largest first; a share is negative where
the activations sum to less than 0. Empty where no tokens are clear."""


def active_tokens(
    prompts: Sequence[Sequence[str]], activations: NDArray[np.float32]
) -> list[ActiveAt]:
    """Return for each node the tokens at which it is active, where at most two are clear.

    They are clear if together they carry at least 80% of the node's absolute activation, summed
    over all tokens of the prompts, if they are at most half of these tokens, and if the node is
    active wherever they are: at 80% of a token's places with at least half of the mean there.

    Args:
        prompts: the tokens of each example prompt.
        activations: (P, T, N) of each node at each token, in the circuit.

    Returns:
        N lists, in the order of the nodes.
    """
    tokens = [token for prompt in prompts for token in prompt]
    texts = sorted(set(tokens))
    if not texts:
        return [[] for _ in range(activations.shape[2])]
    inside = [row[: len(prompt)] for row, prompt in zip(activations, prompts, strict=True)]
    values = np.concatenate(inside).astype(np.float64)  # (tokens, N)
    row_of = {text: row for row, text in enumerate(texts)}
    rows = np.array([row_of[token] for token in tokens])
    absolute, signed = (np.zeros((len(texts), values.shape[1])) for _ in range(2))
    np.add.at(absolute, rows, np.abs(values))
    np.add.at(signed, rows, values)
    frequencies = np.bincount(rows, minlength=len(texts)) / len(tokens)
    names: list[ActiveAt] = []
    for node in range(values.shape[1]):
        clear = _clear(frequencies, absolute[:, node], signed[:, node])
        steady = all(_is_steady(np.abs(values[rows == row, node])) for row, _ in clear)
        names.append([(texts[row], share) for row, share in clear] if steady else [])
    return names


def _is_steady(absolute: NDArray[np.float64]) -> bool:
    """Return whether at least 80% of absolute activations reach half of their mean."""
    return float((absolute >= absolute.mean() / 2).mean()) >= SHARE


def answers_before(
    prompts: Sequence[Sequence[str]],
    right_answers: Sequence[str],
    activations: NDArray[np.float32],
) -> list[ActiveAt]:
    """Return for each node the answer before which it is active, where one is clear.

    An answer is clear if 80% of the node's absolute activation at the last token of the prompts is
    in prompts with this right answer, if these are at most half of the prompts, and if the node's
    mean absolute activation at last tokens is at least that at all tokens.

    Args:
        prompts: the tokens of each example prompt.
        right_answers: of each prompt.
        activations: (P, T, N) of each node at each token, in the circuit.

    Returns:
        N lists of one answer or none.
    """
    texts = sorted(set(right_answers))
    n_nodes = activations.shape[2]
    if not texts:
        return [[] for _ in range(n_nodes)]
    lengths = [len(prompt) for prompt in prompts]
    values = activations.astype(np.float64)
    last = np.stack([row[length - 1] for row, length in zip(values, lengths, strict=True)])
    means = sum(np.abs(row[:n]).sum(axis=0) for row, n in zip(values, lengths, strict=True))
    is_active = np.abs(last).mean(axis=0) >= means / sum(lengths)
    group = np.array([[answer == text for answer in right_answers] for text in texts], np.float64)
    absolute, signed, frequencies = group @ np.abs(last), group @ last, group.mean(axis=1)
    names: list[ActiveAt] = []
    for node in range(n_nodes):
        clear = _clear(frequencies, absolute[:, node], signed[:, node])
        is_named = is_active[node] and len(clear) == 1
        names.append([(texts[row], share) for row, share in clear] if is_named else [])
    return names


def token_label(active_at: ActiveAt) -> str:
    """Return a node's tokens for its box: `('`, or `(" -('` where the signs of the two differ."""
    mixed = len({share < 0 for _, share in active_at}) == 2
    return " ".join(
        f"{_MINUS if mixed and share < 0 else ''}{label(text)}" for text, share in active_at
    )


def _clear(
    frequencies: NDArray[np.float64], absolute: NDArray[np.float64], signed: NDArray[np.float64]
) -> list[tuple[int, float]]:
    """Return (row, share) of the fewest tokens that carry the share, empty if none are clear."""
    total = float(absolute.sum())
    order = np.argsort(-absolute, kind="stable")[:MOST_TOKENS]
    shares = absolute[order] / (total or 1.0)
    n_needed = int(np.searchsorted(np.cumsum(shares), SHARE)) + 1
    if n_needed > len(order) or frequencies[order[:n_needed]].sum() > MOST_PLACES:
        return []
    return [
        (int(row), float(-share if signed[row] < 0 else share))
        for row, share in zip(order[:n_needed], shares, strict=False)
    ]
