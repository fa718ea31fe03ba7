"""Byte-level BPE from its merges, and the merges that make the tasks' answers single tokens."""

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from wirework.data.answers import Answer
from wirework.errors import InputError

PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is cut into pieces before BPE; no token crosses a cut (released `tinypython_2k`)."""

ANSWER_PATTERN = r"['\"]\)|" + PATTERN
"""Ours: what closes a string and a call is cut off from a line break or comma behind it. Else `')`
is a token of its own only where neither follows, too rarely for a small model to learn it."""

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts text; the library's `ByteLevel` has the same pattern built in."""

END_OF_TEXT = "<|endoftext|>"
"""The one special token. Its characters inside a document are encoded as ordinary text."""

N_BYTES = 256
"""Ids of single bytes; they come first."""

Merge = tuple[str, str]
"""Two tokens, by name, that become one."""


def with_answers(merges: list[Merge], room: int, answers: Sequence[Answer]) -> list[Merge]:
    """Return as many of `merges` as fit in `room` tokens beside the answers' merges, then these."""
    # A shorter BPE may lack more answers than a longer one: cut until both fit.
    keep = len(merges)
    while True:
        extra = missing_merges(merges[:keep], answers)
        excess = len(vocabulary(merges[:keep] + extra)) - room
        if excess <= 0:
            return merges[:keep] + extra
        if keep == 0:
            raise InputError(
                f"vocab_size {room + 1} is too small: {N_BYTES} bytes, the tasks' answers and "
                f"end-of-text need {room + 1 + excess}"
            )
        keep = max(keep - excess, 0)


def missing_merges(merges: list[Merge], answers: Sequence[Answer]) -> list[Merge]:
    """Return the merges that make each answer one token, to be put after `merges`.

    Later merges have lower priority, so what is one token stays one when others are added.
    """
    extra: list[Merge] = []
    model = assemble(merges, pattern=ANSWER_PATTERN, end_of_text=False)
    for text in dict.fromkeys(answer.text for answer in answers):
        pieces = model.encode(text).tokens
        if len(pieces) == 1:
            continue
        for end in range(1, len(pieces)):
            extra.append(("".join(pieces[:end]), pieces[end]))
        model = assemble(merges + extra, pattern=ANSWER_PATTERN, end_of_text=False)
    return extra


def vocabulary(merges: Sequence[Merge]) -> dict[str, int]:
    """Return token to id: the 256 bytes, then each merge's product in order."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    products = (left + right for left, right in merges)
    return {token: i for i, token in enumerate(dict.fromkeys([*tokens, *products]))}


def assemble(
    merges: Sequence[Merge],
    vocab: dict[str, int] | None = None,
    *,
    pattern: str = PATTERN,
    end_of_text: bool = True,
) -> tokenizers.Tokenizer:
    """Build a byte-level BPE from its merges; end-of-text goes behind the last id."""
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
