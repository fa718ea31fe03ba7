"""Read tokenisers from files: a `tokenizer.json`, or a vocabulary and merges in GPT-2's format.

The end-of-text token and the split pattern follow from the files. If they do not, it is an error:
they are never guessed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import pre_tokenizers

from wirework.data.bpe import BYTE_OF, END_OF_TEXT, GPT2_PATTERN, PATTERN, Merge, byte_level_bpe
from wirework.errors import InputError, quoted, reason
from wirework.files import JSON_BYTES, is_file, read_json, read_whole

SplitPattern = Literal["gpt2", "tinypython"]
"""Split pattern before the merges: that of GPT-2 or of the released `tinypython_2k`."""

PATTERNS: dict[SplitPattern, str] = {"gpt2": GPT2_PATTERN, "tinypython": PATTERN}

TOKENIZER_CONFIG = "tokenizer_config.json"
"""File beside a `tokenizer.json`; its `eos_token` names the end-of-text token."""

_JSON = "tokenizer.json"
_GPT2_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
"""Names of vocabulary and merges: those of GPT-2's release, and those of transformers."""
_TOKENS_PER_CUT = 500
"""A split pattern fits a vocabulary if it cuts at most one in so many of its tokens."""
_OTHER_FILES = ("tokenizer.model", "spiece.model", "vocab.txt", "sentencepiece.bpe.model")
"""Files of kinds of tokenisers that are not supported."""


def tokenizer_file(folder: Path) -> Path | None:
    """Return the file in a folder from which a tokeniser can be read, or None."""
    names = [_JSON, *(vocab for vocab, _ in _GPT2_FILES)]
    return next((folder / name for name in names if is_file(folder / name)), None)


def other_tokenizer_file(folder: Path) -> Path | None:
    """Return a file in a folder with a tokeniser of an unsupported kind, or None."""
    return next((folder / name for name in _OTHER_FILES if is_file(folder / name)), None)


def read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json` and check that it can encode a letter.

    Raises:
        InputError: it cannot be read, or the tokeniser does not work.
    """
    text = json.dumps(read_json(path))
    try:
        inner = tokenizers.Tokenizer.from_str(text)
        inner.encode("a", add_special_tokens=False)
    except BaseException as error:
        # The library raises bare `Exception`, and for a panic a class that is not an `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{path} is not a tokeniser: {reason(error)}") from error
    return inner


def read_gpt2(folder: Path, split: SplitPattern | None = None) -> tokenizers.Tokenizer:
    """Read `encoder.json` (token to id) and `vocab.bpe` (merges after a version line).

    The same files are also called `vocab.json` and `merges.txt`.

    Args:
        folder: folder with both files.
        split: split pattern; None to infer it from the vocabulary.

    Raises:
        InputError: a file is missing or damaged, or the split pattern cannot be inferred.
    """
    names = next(pair for pair in _GPT2_FILES if is_file(folder / pair[0]))
    encoder, vocab_bpe = (folder / name for name in names)
    vocab = read_json(encoder)
    lines = read_whole(vocab_bpe, JSON_BYTES).splitlines()
    kept = [line for line in lines if line and not line.startswith("#version")]
    merges = [_merge(line, vocab_bpe) for line in kept]
    _check_gpt2(vocab, merges, encoder)
    pattern = PATTERNS[split or _split_of(vocab, merges, encoder)]
    is_release = names == _GPT2_FILES[0]
    return byte_level_bpe(
        merges, vocab, pattern=pattern, end_of_text=is_release or END_OF_TEXT in vocab
    )


def end_of_text(inner: tokenizers.Tokenizer, folder: Path) -> int | None:
    """Return the id of the end-of-text token, or None if the files name none.

    It is `<|endoftext|>` if the tokeniser has it, else the one that the files beside it name.

    Args:
        inner: the tokeniser.
        folder: folder of its files.

    Raises:
        InputError: a file that names the token is damaged.
    """
    declared = list(_declared(folder))
    for name in (END_OF_TEXT, *declared):
        token = inner.token_to_id(name) if isinstance(name, str) else name
        if token is not None and inner.id_to_token(token) is not None:
            return token
    return None


def _declared(folder: Path) -> Iterator[str | int]:
    """Yield names and ids that the files of a folder give for the end-of-text token."""
    for file in (TOKENIZER_CONFIG, "special_tokens_map.json"):
        token = _object(folder / file).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            yield token
    for file in ("generation_config.json", "config.json"):
        ids = _object(folder / file).get("eos_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        if type(first) is int and 0 <= first < 2**32:  # `True` is an int too
            yield first


def _object(path: Path) -> Mapping[str, Any]:
    """Return the fields of a JSON file; none if it is missing or not an object."""
    values = read_json(path) if is_file(path) else {}
    return values if isinstance(values, dict) else {}


def _split_of(vocab: Mapping[str, int], merges: Sequence[Merge], path: Path) -> SplitPattern:
    """Return the split pattern of a vocabulary: the one that cuts (almost) none of its tokens.

    Merges are learnt inside the pieces of the split, so no token should be cut. A few may be: a
    part of a longer token can be cut where the longer one is not.

    Raises:
        InputError: no known pattern fits, or more than one does.
    """
    if not merges:  # single bytes are the same under every pattern
        return "gpt2"
    texts = list(_texts(vocab))
    most_cut = len(texts) // _TOKENS_PER_CUT
    fitting = [name for name, pattern in PATTERNS.items() if _n_cut(pattern, texts) <= most_cut]
    if len(fitting) != 1:
        patterns = "more than one split pattern" if fitting else "no known split pattern"
        raise InputError(
            f"{path}: its {len(vocab):,} tokens fit {patterns}: choose one with "
            f"`wirework convert openai --split {'|'.join(PATTERNS)}`"
        )
    return fitting[0]


def _texts(vocab: Mapping[str, int]) -> Iterator[str]:
    """Yield the text of each token that consists of complete characters."""
    for name in vocab:
        if name != END_OF_TEXT and all(char in BYTE_OF for char in name):
            try:
                yield bytes(BYTE_OF[char] for char in name).decode()
            except UnicodeDecodeError:
                continue


def _n_cut(pattern: str, texts: Sequence[str]) -> int:
    """Return how many texts a split pattern cuts into several pieces."""
    cut = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    return sum(len(cut.pre_tokenize_str(text)) > 1 for text in texts)


def _merge(line: str, path: Path) -> Merge:
    """Parse one line of the merges."""
    first, _, second = line.partition(" ")
    if not first or not second or " " in second:
        raise InputError(f"{path}: a merge is two tokens, got {quoted(line)}")
    return first, second


def _check_gpt2(vocab: Any, merges: Sequence[Merge], path: Path) -> None:
    """Refuse a vocabulary whose ids are not 0, 1, ... or that lacks a part of a merge."""
    if not isinstance(vocab, dict) or set(map(repr, vocab.values())) != set(
        map(repr, range(len(vocab)))
    ):
        raise InputError(f"{path} must map tokens to the ids 0, 1, 2, ... without gaps")
    needed = (token for left, right in merges for token in (left, right, left + right))
    for token in (*pre_tokenizers.ByteLevel.alphabet(), *needed):
        if token not in vocab:
            raise InputError(f"{path} lacks the token {quoted(token)}")
