"""Prompts for a language model, and parsers of its answers.

The format is that of Bills et al. 2023 (openai/automated-interpretability): one line per token with
the token, a tab and its activation from 0 to 10, between `<start>` and `<end>`, after two worked
examples. Wording and examples are ours. A line break or tab in a token is written `\\n`, `\\t`, so
that each token stays on one line.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from wirework.measures.explain.record import LEVELS

Messages = list[dict[str, str]]

PREFIX = "the main thing this neuron does is find"
ENOUGH = 0.8
"""Smallest share of an excerpt's tokens for which an answer must have a number."""

_RARE = 0.2  # below this share of nonzero activations, those are listed once more by themselves

_EXPLAIN = (
    "We study the neurons of a neural network. A neuron looks for one particular thing in short "
    "texts. Given texts and where the neuron was active in them, say in one short sentence what it "
    "looks for; give no lists of words.\n\n"
    "Each line is a token, a tab and the activation, from 0 to 10. Where the neuron finds what it "
    "looks for the activation is above 0; a higher one is a better match."
)
_SIMULATE = (
    "We study the neurons of a neural network. A neuron looks for one particular thing in short "
    "texts. Given what a neuron looks for, predict its activation at each token of a text.\n\n"
    "Each line is a token, a tab and the activation, a whole number from 0 to 10; `unknown` stands "
    "for what is to be predicted. Most activations are 0. Answer with every line of the text, in "
    "the same order, the number in place of `unknown`, and nothing else."
)
_DETECT = (
    "We study the neurons of a neural network. A neuron looks for one particular thing in short "
    "texts. Given what a neuron looks for and a text, answer 1 if the text has it anywhere and 0 "
    "if not, and nothing else."
)


class Shown(NamedTuple):
    """An excerpt as a prompt shows it."""

    tokens: tuple[str, ...]
    levels: tuple[int, ...]


class _Example(NamedTuple):
    excerpts: tuple[Shown, ...]
    explanation: str


def _marked(text: str) -> Shown:
    """Read `token|activation` pairs; a missing activation is 0."""
    pairs = [part.partition("|") for part in text.split("/")]
    return Shown(tuple(p[0] for p in pairs), tuple(int(p[2] or 0) for p in pairs))


_EXAMPLES = (
    _Example(
        (
            _marked("The/ vet/ said/ that/ the/ old/ cat|9/ and/ both/ dogs|10/ were/ fine/."),
            _marked("On/ Monday/ a/ fox|8/ ran/ across/ our/ yard/ after/ a/ hen|7/."),
        ),
        "words for animals",
    ),
    _Example(
        (
            _marked("def/ area/(w/,/ h/):/\n/    /return|10/ w/ */ h/\n"),
            _marked("if/ not/ found/:/\n/    /raise|6/ KeyError/(name/)/\n/return|9/ found"),
        ),
        "keywords that leave a Python function",
    ),
)


def explain_messages(excerpts: Sequence[Shown]) -> Messages:
    """Return the request for an explanation of a neuron from its excerpts."""
    messages = [_message("system", _EXPLAIN)]
    for number, example in enumerate(_EXAMPLES, 1):
        messages.append(_message("user", _request_with_activations(number, example.excerpts)))
        messages.append(_message("assistant", f"{example.explanation}."))
    return [*messages, _message("user", _request_with_activations(len(_EXAMPLES) + 1, excerpts))]


def simulate_messages(explanation: str, tokens: Sequence[str]) -> Messages:
    """Return the request for the activation at each token of one excerpt."""
    messages = [_message("system", _SIMULATE)]
    for number, example in enumerate(_EXAMPLES, 1):
        for excerpt in example.excerpts[:1]:
            messages.append(
                _message(
                    "user", _request_with_unknowns(number, example.explanation, excerpt.tokens)
                )
            )
            messages.append(_message("assistant", _block(excerpt.tokens, excerpt.levels)))
    return [
        *messages,
        _message("user", _request_with_unknowns(len(_EXAMPLES) + 1, explanation, tokens)),
    ]


def detect_messages(explanation: str, tokens: Sequence[str]) -> Messages:
    """Return the question whether a neuron is active in one excerpt (Paulo et al. 2024)."""
    content = f"What the neuron looks for: {PREFIX} {explanation}\n\nText:\n{''.join(tokens)}"
    return [_message("system", _DETECT), _message("user", content)]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _request_with_activations(number: int, excerpts: Sequence[Shown]) -> str:
    content = f"Neuron {number}\nActivations:\n" + "\n".join(_block(*one) for one in excerpts)
    levels = [level for one in excerpts for level in one.levels]
    nonzero = sum(level > 0 for level in levels)
    if 0 < nonzero < _RARE * len(levels):
        content += "\nThe same, without the zeros:\n" + "\n".join(_active(one) for one in excerpts)
    return f"{content}\nExplanation of neuron {number}: {PREFIX}"


def _active(excerpt: Shown) -> str:
    active = [(t, level) for t, level in zip(*excerpt, strict=True) if level]
    return _block([token for token, _ in active], [level for _, level in active])


def _request_with_unknowns(number: int, explanation: str, tokens: Sequence[str]) -> str:
    content = f"Neuron {number}\nExplanation of neuron {number}: {PREFIX} {explanation}"
    return f"{content}\nActivations:\n{_block(tokens, ['unknown'] * len(tokens))}"


def _block(tokens: Sequence[str], values: Sequence[int | str]) -> str:
    lines = [f"{_on_a_line(token)}\t{value}" for token, value in zip(tokens, values, strict=True)]
    return "\n".join(["<start>", *lines, "<end>"])


@dataclass(frozen=True)
class ServerAnswer:
    """Answer of a server."""

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()
    """For each token of the text: `token`, and `top`, log-probabilities by token. May be empty."""


def _on_a_line(token: str) -> str:
    """Return a token with line breaks and tabs escaped."""
    return token.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def read_explanation(answer: ServerAnswer) -> str | None:
    """Return an explanation in one line, without the prefix of the prompt; None if empty."""
    words = " ".join(answer.text.split()).removesuffix(".")
    if words.lower().startswith(PREFIX):
        words = words[len(PREFIX) :].strip()
    return words or None


_LEVEL = re.compile(r"[\t ](\d+(?:\.\d+)?)[\t ]*\r?$", re.ASCII)
_LINES_PER_TOKEN = 8
"""Most lines of an answer that are read, per token; one was asked for."""
_DIGITS = 20
"""Most digits that are read of a number; only 0 to 10 are valid."""


class _Line(NamedTuple):
    """A line of an answer that ends in a number."""

    token: str
    level: float
    at: int
    """Offset in the answer at which the number begins."""


def read_activations(answer: ServerAnswer, tokens: Sequence[str]) -> list[float] | None:
    """Return the activation from 0 to 10 that an answer gives each token; 0 if it gives none.

    With log-probabilities, a number is the expected value over the likely tokens at its place;
    without, the number itself. Lines are matched to tokens in order; None if too few match
    (`ENOUGH`).
    """
    numbered_lines = _lines(answer.text)[: _LINES_PER_TOKEN * len(tokens)]
    lines, wanted = [line.token for line in numbered_lines], [_on_a_line(t).strip() for t in tokens]
    matcher = SequenceMatcher(None, lines, wanted, autojunk=False)
    expected = _expected_levels(answer)
    activations = [0.0] * len(tokens)
    n_matched = 0
    for block in matcher.get_matching_blocks():
        n_matched += block.size
        for i in range(block.size):
            line = numbered_lines[block.a + i]
            level = expected.get(line.at, line.level)
            activations[block.b + i] = min(level, float(LEVELS))
    return activations if n_matched >= ENOUGH * len(tokens) else None


def _lines(text: str) -> list[_Line]:
    """Return the lines that end in a number, in time linear in the length of the text."""
    numbered_lines, offset = [], 0
    for line in text.split("\n"):
        level = _LEVEL.search(line)
        if level is not None:
            token = line[: level.start()].strip()
            numbered_lines.append(_Line(token, float(level[1][:_DIGITS]), offset + level.start(1)))
        offset += len(line) + 1
    return numbered_lines


def read_detection(answer: ServerAnswer) -> float | None:
    """Return the probability that the answer is 1; None if the answer is neither 0 nor 1."""
    reply = answer.text.strip()
    if reply[:1] not in ("0", "1") or reply[1:2].isdigit():
        return None
    for token_logprobs in answer.logprobs:
        if token_logprobs["token"].strip():
            odds = _odds(token_logprobs["top"])
            if set(odds) & {0, 1}:
                return odds.get(1, 0.0) / (odds.get(0, 0.0) + odds.get(1, 0.0))
    return float(reply[0])


def _expected_levels(answer: ServerAnswer) -> dict[int, float]:
    """Return the expected value of each number that is a single token, by its offset."""
    expected = {}
    offset = 0
    for token_logprobs in answer.logprobs:
        token = token_logprobs["token"]
        if token.strip().isdecimal():
            odds = _odds(token_logprobs["top"])
            total = sum(odds.values())
            after = answer.text[offset + len(token) : offset + len(token) + 1]
            if total > 0 and not after.isdigit():
                start = offset + len(token) - len(token.lstrip())
                expected[start] = sum(level * share for level, share in odds.items()) / total
        offset += len(token)
    return expected


def _odds(top: dict[str, float]) -> dict[int, float]:
    """Return the probability of each level, over the tokens that are levels."""
    odds: dict[int, float] = {}
    for token, logprob in top.items():
        word = token.strip()
        if word.isdecimal() and len(word) < _DIGITS and int(word) <= LEVELS:
            odds[int(word)] = odds.get(int(word), 0.0) + math.exp(logprob)
    return odds
