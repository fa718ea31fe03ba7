"""Build a byte-level BPE from its merges, and find the merges that make answers single tokens."""

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from wirework.data.answers import Answer
from wirework.errors import InputError

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Split pattern of the released `tinypython_2k`: no token crosses the border of two pieces."""

ANSWER_PATTERN = r"['\"]\)|" + PATTERN
"""Ours: the end of a string and its call is a piece apart from a line break or comma after it.
Otherwise `')` is a token only where neither follows, too rarely for a small model to learn it."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Split pattern of GPT-2, the same as that of the library's `ByteLevel`."""

END_OF_TEXT = "<|endoftext|>"
"""The one special token. Its characters inside a document are encoded as ordinary text."""

N_BYTES = 256
"""Ids of single bytes; they come first."""

Merge = tuple[str, str]
"""Names of two tokens that are merged to one."""


def with_answers(merges: list[Merge], room: int, answers: Sequence[Answer]) -> list[Merge]:
    """Drop the last merges to make room for those that make answers single tokens.

    Args:
        merges: merges of a BPE, in their order.
        room: most tokens of the result, including the 256 bytes, without end-of-text.
        answers: the answers.

    Returns:
        The first of `merges`, then those of the answers.

    Raises:
        InputError: bytes and answers need more than `room` tokens.
    """
    # A BPE with fewer merges may need more of them for the answers: repeat until both fit.
    n_kept = len(merges)
    while True:
        extra = missing_merges(merges[:n_kept], answers)
        excess = len(vocabulary(merges[:n_kept] + extra)) - room
        if excess <= 0:
            return merges[:n_kept] + extra
        if n_kept == 0:
            raise InputError(
                f"vocab_size {room + 1} is too small: {N_BYTES} bytes, the tasks' answers and "
                f"end-of-text need {room + 1 + excess}"
            )
        n_kept = max(n_kept - excess, 0)


def missing_merges(merges: list[Merge], answers: Sequence[Answer]) -> list[Merge]:
    """Return the merges to append to `merges` so that each answer is one token.

    Later merges have lower priority, so adding them never splits an existing token.
    """
    extra: list[Merge] = []
    model = byte_level_bpe(merges, pattern=ANSWER_PATTERN, end_of_text=False)
    for text in dict.fromkeys(answer.text for answer in answers):
        pieces = model.encode(text).tokens
        if len(pieces) == 1:
            continue
        for end in range(1, len(pieces)):
            extra.append(("".join(pieces[:end]), pieces[end]))
        model = byte_level_bpe(merges + extra, pattern=ANSWER_PATTERN, end_of_text=False)
    return extra


def vocabulary(merges: Sequence[Merge]) -> dict[str, int]:
    """Return token to id: the 256 bytes, then each merge's product in order."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    products = (left + right for left, right in merges)
    return {token: i for i, token in enumerate(dict.fromkeys([*tokens, *products]))}


def byte_level_bpe(
    merges: Sequence[Merge],
    vocab: dict[str, int] | None = None,
    *,
    pattern: str = PATTERN,
    end_of_text: bool = True,
) -> tokenizers.Tokenizer:
    """Build a byte-level BPE from its merges.

    Args:
        merges: in the order of their priority.
        vocab: token to id; None for that of `vocabulary`.
        pattern: split pattern; no merge crosses the border of two pieces.
        end_of_text: add the end-of-text token, with the last id.
    """
    vocab = vocab or vocabulary(merges)
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    if pattern == GPT2_PATTERN:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    inner.decoder = decoders.ByteLevel()
    if end_of_text:
        special = tokenizers.AddedToken(END_OF_TEXT, special=True, normalized=False)
        inner.add_special_tokens([special])
    return inner


def _byte_table() -> dict[str, int]:
    """Return the byte that each character of a token's name stands for (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(N_BYTES + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_table()
"""The byte that each character of a token's name stands for (GPT-2's table)."""
