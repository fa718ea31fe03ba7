"""A task: pairs of prompts that test one behaviour by the next token.

Each pair has two prompts and two answers: `answers[0]` is right after `prompts[0]` and wrong after
`prompts[1]`, `answers[1]` the reverse (Gao et al. 2025, Table 1). Tokenised, a pair is two prompts
of a batch; every answer must be a single token in its context.
Shapes: P pairs, T tokens of the longest prompt.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wirework.data.tokenizer import not_one_token
from wirework.errors import InputError, number_of, quoted
from wirework.renamed_names import old_arguments, old_attributes
from wirework.summaries import shown_as

if TYPE_CHECKING:
    from wirework.data.tokenizer import Tokenizer
    from wirework.model import Model

_WORD = re.compile(r"\w+")
_SURROGATE = re.compile("[\ud800-\udfff]")

_LONGEST = 1_000_000
"""Most characters of a prompt or answer."""
_PER_TOKEN = 1000
"""Upper bound of characters per token: a longer prompt is rejected without tokenising it."""

LEAST_PAIRS = 16
"""Fewest pairs of a generated task that must fit a tokeniser."""


@dataclass(frozen=True)
class Pair:
    """Two prompts with different right answers.

    Raises:
        InputError: not two prompts and two answers, or one of them is empty, too long or not
            Unicode text, or two are equal.
    """

    prompts: tuple[str, str]
    answers: tuple[str, str]
    template: str | None = field(default=None, compare=False)
    """Form of the statement that decides the answer; pairs of some templates are held out from
    every search (task_split.py). None: the task has no templates."""

    def __post_init__(self) -> None:
        for kind, texts in (("prompts", self.prompts), ("answers", self.answers)):
            if len(texts) != 2:
                raise InputError(f"a pair needs two {kind}, got {len(texts)}")
            if not all(texts):
                raise InputError(f"{kind} must not be empty, got {quoted(list(texts))}")
            if (longest := max(map(len, texts))) > _LONGEST:
                raise InputError(f"{kind} have at most {_LONGEST:,} characters, got {longest:,}")
            if any(_SURROGATE.search(text) for text in texts):
                raise InputError(
                    f"{kind} must be Unicode text, got half a character: {quoted(texts)}"
                )
            if texts[0] == texts[1]:
                raise InputError(
                    f"the two {kind} of a pair must differ, both are {quoted(texts[0])}"
                )

    @property
    def content(self) -> frozenset[tuple[str, str]]:
        """Prompts with their answers, independent of order: identifies duplicate pairs."""
        return frozenset(zip(self.prompts, self.answers, strict=True))


@old_arguments(at="last_positions")
@old_attributes(at="last_positions")
@dataclass(frozen=True)
class TokenizedPairs:
    """A batch of tokenised pairs; rows 2i and 2i + 1 are the prompts of pair i."""

    tokens: Tensor
    """(2P, T) int64, padded on the right with end-of-text (masked for each prompt's last token)."""
    last_positions: Tensor
    """(2P,) int64, position of the last token of each prompt."""
    answers: Tensor
    """(2P, 2) int64, right answer in column 0, wrong answer (of the other prompt) in column 1."""
    numbers: Tensor | None = None
    """(2P,) int64, number of each prompt in the batch that it was selected from, to find values of
    its own (adversarial ablation); None: its row."""

    @property
    def n_pairs(self) -> int:
        """P, the number of pairs."""
        return len(self.last_positions) // 2

    def __repr__(self) -> str:
        return (
            f"TokenizedPairs({number_of(self.n_pairs, 'pair')}, tokens {tuple(self.tokens.shape)} "
            f"on {self.tokens.device})"
        )

    def select(self, pairs: Tensor) -> "TokenizedPairs":
        """Return the pairs with these indices (int64, 1-d), padded to their longest prompt."""
        rows = torch.stack([2 * pairs, 2 * pairs + 1], 1).flatten()
        last_positions = self.last_positions[rows]
        return TokenizedPairs(
            self.tokens[rows, : int(last_positions.max()) + 1],
            last_positions,
            self.answers[rows],
            rows if self.numbers is None else self.numbers[rows],
        )

    def to(self, device: torch.device) -> "TokenizedPairs":
        """Return the same batch on `device`."""
        return TokenizedPairs(
            self.tokens.to(device),
            self.last_positions.to(device),
            self.answers.to(device),
            None if self.numbers is None else self.numbers.to(device),
        )


@dataclass(frozen=True)
class Task:
    """A named behaviour with its pairs.

    `generated`: a function makes the pairs; pairs that do not fit a tokeniser are dropped
    (`fitted`), whereas in a user's file they are an error. `seed`: seed of that function. `path`:
    file or function name of a user's task. `single`: words that must be one token, together with
    the space before them, in the prompts that contain them.
    """

    name: str
    pairs: tuple[Pair, ...]
    generated: bool = False
    seed: int = 0
    path: str | None = None
    single: tuple[str, ...] = ()

    def __repr__(self) -> str:
        about = f"{quoted(self.name)}, {number_of(len(self.pairs), 'pair')}"
        if not self.pairs:
            return f"Task({about})"
        first = self.pairs[0]
        examples = (
            f"{quoted(prompt)} -> {quoted(answer)}"
            for prompt, answer in zip(first.prompts, first.answers, strict=True)
        )
        return shown_as("Task", about, *examples)

    @property
    def answers(self) -> tuple[str, ...]:
        """The distinct answers, in order of first appearance."""
        return tuple(dict.fromkeys(text for pair in self.pairs for text in pair.answers))

    def encode(self, tokenizer: "Tokenizer", n_ctx: int) -> TokenizedPairs:
        """Tokenise all pairs of the task.

        Args:
            tokenizer: tokeniser of the model.
            n_ctx: maximum length of a prompt in tokens.

        Raises:
            InputError: an answer is not one token after its prompt, or a prompt is too long; the
                message names the pair, the prompt, the answer and its tokens.
        """
        rows: list[_Row] = []
        for number, pair_rows in enumerate(_tokenized_rows(self.pairs, tokenizer, n_ctx), 1):
            if isinstance(pair_rows, str):
                raise InputError(f"task {self.name}, pair {number}: {pair_rows}")
            rows.extend(pair_rows)
        if not rows:
            raise InputError(f"task {self.name} has no pairs")
        return _stack(rows, tokenizer.eot)

    def fitted(self, tokenizer: "Tokenizer", n_ctx: int) -> "Task":
        """Return the task with the pairs that fit this tokeniser and context.

        Raises:
            InputError: a pair of a user's file does not fit, or fewer than `LEAST_PAIRS` of a
                generated task do; the message gives the first reason.
        """
        if not self.generated:
            self.encode(tokenizer, n_ctx)
            return self
        rows_or_reasons = _tokenized_rows(self.pairs, tokenizer, n_ctx)
        multi_token_words = {word for word in self.single if len(tokenizer.encode(f" {word}")) > 1}
        for i, pair in enumerate(self.pairs):
            if multi_token_words and (
                cut := multi_token_words.intersection(_WORD.findall(pair.prompts[0]))
            ):
                rows_or_reasons[i] = f"{min(cut)!r} is not one token"
        reasons = [rows for rows in rows_or_reasons if isinstance(rows, str)]
        kept = [
            pair
            for pair, rows in zip(self.pairs, rows_or_reasons, strict=True)
            if not isinstance(rows, str)
        ]
        if len(kept) < LEAST_PAIRS:
            raise InputError(
                f"task {self.name} does not fit this tokeniser: {len(reasons)} of "
                f"{number_of(len(self.pairs), 'pair')} skipped; the first: {reasons[0]}"
                if reasons
                else f"task {self.name} has {number_of(len(kept), 'pair')}, at least "
                f"{LEAST_PAIRS} are needed"
            )
        return replace(self, pairs=tuple(kept))

    def take(self, pairs: Sequence[Pair]) -> "Task":
        """Return the same task with only these pairs."""
        return replace(self, pairs=tuple(pairs))

    def split(self, seed: int, share: float = 0.5) -> "tuple[Task, Task]":
        """Split the pairs into two disjoint tasks, a pure function of the seed.

        Args:
            seed: of the shuffle.
            share: share of the pairs in the first task; each task gets at least one pair.

        Raises:
            InputError: fewer than two pairs.
        """
        if len(self.pairs) < 2:
            raise InputError(
                f"task {self.name} has {number_of(len(self.pairs), 'pair')}, a split needs two"
            )
        order = list(range(len(self.pairs)))
        random.Random(f"split {seed}").shuffle(order)
        cut = min(max(round(share * len(order)), 1), len(order) - 1)
        first, second = (sorted(part) for part in (order[:cut], order[cut:]))
        return self.take([self.pairs[i] for i in first]), self.take([self.pairs[i] for i in second])


def tokenizer_of(model: "Model") -> "Tokenizer":
    """Return the model's tokeniser.

    Raises:
        InputError: it has none.
    """
    if model.tokenizer is None:
        where = f"{model.path}: " if model.path else ""
        raise InputError(
            f"{where}a task needs a model with a tokeniser, this one has none: "
            "convert it again with its tokeniser beside the weights"
        )
    return model.tokenizer


@dataclass(frozen=True)
class _Row:
    prompt: list[int]
    right: int
    wrong: int


def _tokenized_rows(
    pairs: Sequence[Pair], tokenizer: "Tokenizer", n_ctx: int
) -> list[tuple[_Row, _Row] | str]:
    """Return the two tokenised prompts of each pair, or the reason why it does not fit."""
    most = _PER_TOKEN * n_ctx
    short = [pair for pair in pairs if max(map(len, (*pair.prompts, *pair.answers))) <= most]
    prompts = [prompt for pair in short for prompt in pair.prompts]
    prompts_with_answers = [
        prompt + answer for pair in short for prompt in pair.prompts for answer in pair.answers
    ]
    before, after = tokenizer.encode_batch(prompts), tokenizer.encode_batch(prompts_with_answers)
    rows = iter(
        _pair_rows(pair, before[2 * i : 2 * i + 2], after[4 * i : 4 * i + 4], tokenizer, n_ctx)
        for i, pair in enumerate(short)
    )
    kept = set(map(id, short))
    return [next(rows) if id(pair) in kept else _too_long(pair, n_ctx) for pair in pairs]


def _too_long(pair: Pair, n_ctx: int) -> str:
    longest = max((*pair.prompts, *pair.answers), key=len)
    return (
        f"prompt or answer ...{longest[-30:]!r} has {len(longest):,} characters, "
        f"the model takes {number_of(n_ctx, 'token')}"
    )


def _pair_rows(
    pair: Pair, before: list[list[int]], after: list[list[int]], tokenizer: "Tokenizer", n_ctx: int
) -> tuple[_Row, _Row] | str:
    ends: list[int] = []
    for j, ids_with_answer in enumerate(after):
        prompt, answer, ids = pair.prompts[j // 2], pair.answers[j % 2], before[j // 2]
        if len(ids) > n_ctx:
            return (
                f"prompt ...{prompt[-30:]!r} has {number_of(len(ids), 'token')}, the model "
                f"takes {n_ctx}"
            )
        if ids_with_answer[:-1] != ids:
            return not_one_token(tokenizer, prompt, answer, ids, ids_with_answer)
        ends.append(ids_with_answer[-1])
    if ends[0] == ends[1] or ends[2] == ends[3]:
        return f"answers {pair.answers[0]!r} and {pair.answers[1]!r} are the same token"
    return _Row(before[0], ends[0], ends[1]), _Row(before[1], ends[3], ends[2])


def _stack(rows: Iterable[_Row], padding: int) -> TokenizedPairs:
    rows = list(rows)
    longest = max(len(row.prompt) for row in rows)
    padded = [row.prompt + [padding] * (longest - len(row.prompt)) for row in rows]
    return TokenizedPairs(
        tokens=torch.tensor(padded, dtype=torch.int64),
        last_positions=torch.tensor([len(row.prompt) - 1 for row in rows]),
        answers=torch.tensor([[row.right, row.wrong] for row in rows]),
    )
