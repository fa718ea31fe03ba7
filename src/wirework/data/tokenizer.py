"""The tokeniser: a byte-level BPE in which every answer of the tasks is one token.

A BPE trained plainly on code lacks some answers (`')` exists only together with a line break). So
the last few places of the vocabulary go to them: their merges come last, with the lowest priority,
and ordinary text is cut as before. Layout and, but for one cut (`bpe.ANSWER_PATTERN`), the split
pattern are those of the released `tinypython_2k` (Gao et al. 2025): end-of-text is the last id.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers, trainers

from wirework.data.answers import ANSWERS, Answer
from wirework.data.bpe import (
    ANSWER_PATTERN,
    BYTE_OF,
    END_OF_TEXT,
    N_BYTES,
    PATTERN,
    assemble,
    with_answers,
)
from wirework.data.tokenizer_files import read_gpt2, read_tokenizer_json
from wirework.errors import InputError
from wirework.files import write_text


class Tokenizer:
    """Text to token ids and back.

    Wraps a `tokenizers.Tokenizer`; nothing is added around a text and nothing is cut from it.
    """

    def __init__(self, inner: tokenizers.Tokenizer, source: str = "tokeniser"):
        """Wrap `inner`.

        Args:
            inner: must know `<|endoftext|>`.
            source: where it came from, for messages.

        Raises:
            InputError: `inner` has no `<|endoftext|>`.
        """
        eot = inner.token_to_id(END_OF_TEXT)
        if eot is None:
            raise InputError(f"{source} has no {END_OF_TEXT} token to put between documents")
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        self._eot: int = eot

    @property
    def eot(self) -> int:
        """Id of end-of-text; the last id in tokenisers of ours."""
        return self._eot

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, special token included: one more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hex, of the tokeniser's JSON with sorted keys."""
        return hashlib.sha256(self._json().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without end-of-text."""
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; the same as `encode` on each, in several threads."""
        batch = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD.

        Raises:
            InputError: an id outside 0 .. vocab_size - 1.
        """
        for token_id in ids:
            self._check(token_id)
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def token(self, token_id: int) -> str:
        r"""Return the text of one token; bytes that are no UTF-8 on their own read `\xe2`.

        Raises:
            InputError: `token_id` is outside 0 .. vocab_size - 1.
        """
        self._check(token_id)
        name = self._inner.id_to_token(token_id) or ""
        if any(char not in BYTE_OF for char in name):
            return name
        return bytes(BYTE_OF[char] for char in name).decode(errors="backslashreplace")

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json`, atomically."""
        write_text(Path(path), self._json())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a `tokenizer.json`, a folder with one, or a folder of `encoder.json`, `vocab.bpe`.

        Raises:
            InputError: missing or unreadable, or no tokeniser with `<|endoftext|>`.
        """
        path = Path(path)
        if (path / "encoder.json").is_file() and not (path / "tokenizer.json").is_file():
            return cls(read_gpt2(path), str(path))
        return cls(
            read_tokenizer_json(path / "tokenizer.json" if path.is_dir() else path), str(path)
        )

    def _json(self) -> str:
        return json.dumps(json.loads(self._inner.to_str()), sort_keys=True, ensure_ascii=False)

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise InputError(f"token id {token_id} is outside 0 .. {self.vocab_size - 1}")


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, answers: Sequence[Answer] = ANSWERS
) -> Tokenizer:
    """Train a byte-level BPE on `texts` that holds each answer as one token in its context.

    The same texts give the same tokeniser, byte for byte, in whatever order they come.

    Args:
        texts: read once, never held.
        vocab_size: number of ids, the 256 bytes and end-of-text included.
        answers: what must be one token; empty for a plain BPE.

    Raises:
        InputError: `vocab_size` has no room for bytes, answers and end-of-text; the texts are
            too few to fill it; or an answer cannot be one token after its prompt.
    """
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size - 1, N_BYTES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pattern = ANSWER_PATTERN if answers else PATTERN
    learner = assemble([], pattern=pattern, end_of_text=False)
    _learn(learner, texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    inner = assemble(with_answers(merges, vocab_size - 1, answers), pattern=pattern)
    tokenizer = Tokenizer(inner)
    if tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"the text gives a vocabulary of at most {tokenizer.vocab_size} tokens, "
            f"vocab_size is {vocab_size}: lower it or give more text"
        )
    for answer in answers:
        single_token(tokenizer, answer.prompt, answer.text)
    return tokenizer


def single_token(tokenizer: Tokenizer, prompt: str, answer: str) -> int:
    """Return the id of `answer`, which must be one token right after `prompt`.

    Raises:
        InputError: it is several tokens there, or melts into the end of the prompt.
    """
    before, whole = tokenizer.encode(prompt), tokenizer.encode(prompt + answer)
    if len(whole) != len(before) + 1 or whole[:-1] != before:
        tail = [tokenizer.token(i) for i in whole[max(len(before) - 1, 0) :]]
        raise InputError(
            f"answer {answer!r} is not one token after {prompt[-40:]!r}: "
            f"the text ends in the tokens {tail}"
        )
    return whole[-1]


def _learn(learner: tokenizers.Tokenizer, texts: Iterable[str], trainer: Any) -> None:
    """Train `learner`, so that an interrupt is heard at once.

    The library's call keeps the thread it is made in from handling signals until it returns. So it
    is made in a thread of its own, which nobody waits for after an interrupt: what it makes then
    is dropped, and a process that ends does not wait for it either.
    """
    stop, outcome = threading.Event(), SimpleQueue[BaseException | None]()
    fed = itertools.takewhile(lambda _: not stop.is_set(), texts)

    def learn() -> None:
        try:
            learner.train_from_iterator(fed, trainer)
            outcome.put(None)
        except BaseException as error:  # a panic of the library is no `Exception`
            outcome.put(error)

    threading.Thread(target=learn, name="tokeniser", daemon=True).start()
    try:
        error = outcome.get()
    finally:
        stop.set()
    if error is not None:
        raise error
