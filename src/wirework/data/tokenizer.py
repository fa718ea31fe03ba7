"""The tokeniser: a byte-level BPE in which every answer of the tasks is one token.

A BPE trained on code alone lacks some answers (`')` exists only together with a line break). The
last entries of the vocabulary are reserved for them. Their merges have the lowest priority, so that
ordinary text is tokenised as before. The layout is that of the released `tinypython_2k` (Gao et al.
2025), with end-of-text as the last id; so is the split pattern, except for `bpe.ANSWER_PATTERN`.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
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
    byte_level_bpe,
    with_answers,
)
from wirework.data.tokenizer_files import (
    TOKENIZER_CONFIG,
    SplitPattern,
    end_of_text,
    read_gpt2,
    read_tokenizer_json,
    tokenizer_file,
)
from wirework.errors import InputError
from wirework.files import verify_listed, write_json, write_text


class NoEndOfTextError(InputError):
    """A tokeniser is valid but has no end-of-text token."""


_PIECE = 4_000_000
"""Characters that are tokenised in one call of the library."""
_SIGNAL_SECONDS = 0.1
"""Maximum seconds between two checks for signals while the library works."""
_MOST_SHOWN = 8
"""Maximum number of tokens listed in a message."""
_LONE_SURROGATE = "text to be tokenised holds half a character (a lone surrogate)"


class Tokenizer:
    """Text to token ids and back.

    Wraps a `tokenizers.Tokenizer`; no token is added to a text and none is removed.
    """

    def __init__(
        self, inner: tokenizers.Tokenizer, source: str = "tokeniser", eot: int | None = None
    ):
        """Wrap `inner`.

        Args:
            inner: the library's tokeniser.
            source: its origin, for messages.
            eot: id of the end-of-text token; None for that of `<|endoftext|>`.

        Raises:
            NoEndOfTextError: `eot` is None and `inner` has no `<|endoftext|>`.
        """
        eot = inner.token_to_id(END_OF_TEXT) if eot is None else eot
        if eot is None:
            raise NoEndOfTextError(
                f"{source} has no {END_OF_TEXT} token to put between documents, and no "
                f"{TOKENIZER_CONFIG} beside it names another as eos_token"
            )
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        self._eot: int = eot

    @property
    def eot(self) -> int:
        """Id of the end-of-text token; the last id in tokenisers that wirework trained."""
        return self._eot

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, special token included: one more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, as hex, of the tokeniser's JSON (keys sorted) and of an unusual end-of-text."""
        ending = "" if self._end_name == END_OF_TEXT else f"\n{self._end_name}"
        return hashlib.sha256(f"{self._json()}{ending}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without end-of-text; a very long text is encoded in parts.

        Raises:
            InputError: the text contains a lone surrogate.
        """
        if len(text) > _PIECE:
            return self.encode_batch([text])[0]
        try:
            ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise InputError(_LONE_SURROGATE) from None
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text; the same as `encode` on each, in several threads.

        Raises:
            InputError: a text contains a lone surrogate.
        """
        ids_of_texts: list[list[int]] = [[] for _ in texts]
        for part in _parts(texts):
            pieces = [texts[i][start:end] for i, start, end in part]
            for (i, _, _), ids in zip(part, self._encoded(pieces), strict=True):
                ids_of_texts[i] += ids
        return ids_of_texts

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        try:
            batch = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # raised by the library for lone surrogates
            raise InputError(_LONE_SURROGATE) from None
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Raises:
            InputError: an id outside 0 .. vocab_size - 1.
        """
        for token_id in ids:
            self._check(token_id)
        text: str = self._inner.decode(list(ids), skip_special_tokens=False)
        return text

    def token(self, token_id: int) -> str:
        r"""Return the text of one token; bytes that are not UTF-8 on their own become `\xe2`.

        Raises:
            InputError: `token_id` is outside 0 .. vocab_size - 1.
        """
        self._check(token_id)
        name = self._inner.id_to_token(token_id) or ""
        if any(char not in BYTE_OF for char in name):
            return name
        return bytes(BYTE_OF[char] for char in name).decode(errors="backslashreplace")

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json`, which appears when it is complete.

        If the end-of-text token is not `<|endoftext|>`, a `tokenizer_config.json` that names it is
        written to the same folder, as transformers does.

        Args:
            path: the file.
        """
        path = Path(path)
        if self._end_name != END_OF_TEXT:
            write_json(path.with_name(TOKENIZER_CONFIG), {"eos_token": self._end_name})
        write_text(path, self._json())

    @classmethod
    def load(cls, path: str | Path, split: SplitPattern | None = None) -> "Tokenizer":
        """Read a tokeniser.

        Args:
            path: a `tokenizer.json`, or a folder with one or with a vocabulary and merges
                (`encoder.json` and `vocab.bpe`, or `vocab.json` and `merges.txt`). The end-of-text
                token is `<|endoftext|>` or the one that the files beside it name
                (`tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`,
                `config.json`).
            split: split pattern of vocabulary and merges, `gpt2` or `tinypython`; None to infer it
                from the vocabulary.

        Raises:
            NoEndOfTextError: no file names the end-of-text token.
            InputError: the file is missing, damaged or at odds with the `checksums.json` beside it,
                or the split pattern cannot be inferred.
        """
        path = Path(path)
        file = (tokenizer_file(path) or path / "tokenizer.json") if path.is_dir() else path
        is_gpt2 = path.is_dir() and file.name != "tokenizer.json"
        if not is_gpt2:
            verify_listed(file)
        inner = read_gpt2(path, split) if is_gpt2 else read_tokenizer_json(file)
        return cls(inner, str(path), end_of_text(inner, file.parent))

    @property
    def _end_name(self) -> str:
        return str(self._inner.id_to_token(self._eot))

    def _json(self) -> str:
        return json.dumps(json.loads(self._inner.to_str()), sort_keys=True, ensure_ascii=False)

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise InputError(f"token id {token_id} is outside 0 .. {self.vocab_size - 1}")


def _parts(texts: Sequence[str]) -> Iterator[list[tuple[int, int, int]]]:
    """Yield parts of bounded length: for each piece, the index of its text, its start and its end.

    The library aborts the process on a text of ten million blanks, and uses some 200 bytes per
    character. Texts of up to `_PIECE` characters stay whole, so that their tokens do not change.
    """
    part: list[tuple[int, int, int]] = []
    size = 0
    for i, text in enumerate(texts):
        for start in range(0, max(len(text), 1), _PIECE):
            end = min(start + _PIECE, len(text))
            if part and size + end - start > _PIECE:
                yield part
                part, size = [], 0
            part.append((i, start, end))
            size += end - start
    if part:
        yield part


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    answers: Sequence[Answer] = ANSWERS,
    fewer: bool = False,
) -> Tokenizer:
    """Train a byte-level BPE on `texts` that holds each answer as one token in its context.

    The same texts in any order give the same tokeniser, byte for byte.

    Args:
        texts: read once and not kept in memory.
        vocab_size: number of ids, including the 256 bytes and end-of-text.
        answers: answers that must be one token; empty for a plain BPE.
        fewer: accept a smaller vocabulary if the texts are too few to fill `vocab_size`.

    Raises:
        InputError: `vocab_size` has no room for bytes, answers and end-of-text; the texts are
            too few to fill it, without `fewer`; or an answer cannot be one token after its prompt.
    """
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size - 1, N_BYTES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pattern = ANSWER_PATTERN if answers else PATTERN
    learner = byte_level_bpe([], pattern=pattern, end_of_text=False)
    _learn(learner, texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    inner = byte_level_bpe(with_answers(merges, vocab_size - 1, answers), pattern=pattern)
    tokenizer = Tokenizer(inner)
    if tokenizer.vocab_size != vocab_size and not fewer:
        raise too_few_tokens(tokenizer.vocab_size, vocab_size)
    for answer in answers:
        single_token(tokenizer, answer.prompt, answer.text)
    return tokenizer


def too_few_tokens(size: int, wanted: int) -> InputError:
    """Return the error of a text that gives a vocabulary of `size` tokens instead of `wanted`."""
    return InputError(
        f"the text gives a vocabulary of at most {size} tokens, vocab_size is {wanted}: "
        f"give --data.vocab_size {size} or auto, or more text"
    )


def single_token(tokenizer: Tokenizer, prompt: str, answer: str) -> int:
    """Return the id of `answer`, which must be one token right after `prompt`.

    Raises:
        InputError: it is several tokens there, or is merged with the end of the prompt.
    """
    of_prompt, of_both = tokenizer.encode(prompt), tokenizer.encode(prompt + answer)
    if len(of_both) != len(of_prompt) + 1 or of_both[:-1] != of_prompt:
        raise InputError(not_one_token(tokenizer, prompt, answer, of_prompt, of_both))
    return of_both[-1]


def not_one_token(
    tokenizer: Tokenizer, prompt: str, answer: str, of_prompt: Sequence[int], of_both: Sequence[int]
) -> str:
    """Return a message that says why an answer is not one token after a prompt, and what to do.

    Args:
        tokenizer: tokeniser of the model.
        prompt: text of the prompt.
        answer: text of the answer.
        of_prompt: ids of the prompt.
        of_both: ids of the prompt followed by the answer.
    """
    pairs = enumerate(zip(of_prompt, of_both, strict=False))
    n_same = next((i for i, (a, b) in pairs if a != b), min(len(of_prompt), len(of_both)))
    different = of_both[n_same:]
    tokens = ", ".join(repr(tokenizer.token(token_id)) for token_id in different[:_MOST_SHOWN])
    dots = ", ..." if len(different) > _MOST_SHOWN else ""
    wanted = f"answer {answer[:40]!r} must be one token after the prompt ...{prompt[-30:]!r}, but "
    if n_same == len(of_prompt):
        return f"{wanted}is {len(different)}: {tokens}{dots}; give an answer that is one token"
    return (
        f"{wanted}the end of the prompt and the answer become {tokens}{dots} together; let the "
        "prompt end elsewhere (the space before a word belongs to the word's token)"
    )


def _learn(learner: tokenizers.Tokenizer, texts: Iterable[str], trainer: Any) -> None:
    """Train `learner` in a thread, so that an interrupt ends this call at once.

    The library's call blocks signal handling in its thread until it returns. After an interrupt the
    thread is abandoned and its result dropped.
    """
    stop, outcome = threading.Event(), SimpleQueue[BaseException | None]()
    pieces = (text[start:end] for text in texts for ((_, start, end),) in _parts([text]))
    pieces_until_stop = itertools.takewhile(lambda _: not stop.is_set(), pieces)

    def learn() -> None:
        try:
            learner.train_from_iterator(pieces_until_stop, trainer)
            outcome.put(None)
        except BaseException as error:  # a panic of the library is not an `Exception`
            outcome.put(error)

    try:
        threading.Thread(target=learn, name="tokeniser", daemon=True).start()
        error = _result(outcome)
    finally:
        stop.set()
    if error is not None:
        raise error


def _result(outcome: SimpleQueue[BaseException | None]) -> BaseException | None:
    """Wait for the outcome, in steps of `_SIGNAL_SECONDS`, between which signals are handled.

    In a wait without a limit, a signal that arrives just before it begins would be handled only
    when it ends.
    """
    while True:
        with suppress(Empty):
            return outcome.get(timeout=_SIGNAL_SECONDS)
