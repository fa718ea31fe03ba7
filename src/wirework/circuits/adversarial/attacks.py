"""Attacks: text changes of a pair's prompts that do not change the right answers.

Python's parser checks every changed prompt: whether prompt plus answer can be continued to code
that parses must be the same as before. The last statement stays unchanged, except for a longer list
or string; the inserted text is neutral code, a repeated line, or a comment, which has no meaning.
Source: Gao et al. 2025, Fig. 8 (unmatched brackets in a comment, long lists).
"""

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from wirework.tasks import Pair
from wirework.tasks.snippets import WORDS, elements, lines_before

Prompts = tuple[str, str]
"""The two prompts of a pair."""

FILLER = " value"
"""Filler word of inserted comments."""


@dataclass(frozen=True)
class Attack:
    """A change of prompts with adjustable strength."""

    name: str
    """Name for tables and figures."""
    change: Callable[[Pair, int, Random], Iterator[Prompts]]
    """Yields changed prompts of a pair, best first; nothing if the attack does not apply."""

    def __call__(self, pair: Pair, strength: int, rng: Random) -> Pair | None:
        """Return the changed pair, or None if no change keeps the answers right.

        Args:
            pair: prompts and answers; the answers are not changed.
            strength: number of elements, words, lines or tokens to add; 0 changes nothing.
            rng: source of random draws.
        """
        if not strength:
            return pair
        changed = (Pair(prompts, pair.answers) for prompts in self.change(pair, strength, rng))
        return next((after for after in changed if keeps_answers(pair, after)), None)


def insert(unit: str, name: str) -> Attack:
    """Return the attack that puts a comment with a repeated text before the prompt.

    Args:
        unit: the repeated text, without line breaks.
        name: name of the attack.
    """

    def change(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
        yield _before(pair, f"{comment(unit, strength)}\n")

    return Attack(name, change)


def insert_in_string(unit: str, side: int, name: str) -> Attack:
    """Return the attack that puts a repeated text into the string which a prompt has open.

    The other prompt of the pair gets filler words: the text may contain the quote that closes it.

    Args:
        unit: the repeated text, without line breaks.
        side: which prompt of a pair gets the text, 0 or 1.
        name: name of the attack.
    """

    def change(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
        starts = [_open_string(prompt) for prompt in pair.prompts]
        if None not in starts:
            first, second = (
                f"{prompt[:start]}{((unit if i == side else FILLER) * strength).lstrip()} "
                f"{prompt[start:]}"
                for i, (prompt, start) in enumerate(zip(pair.prompts, starts, strict=True))
            )
            yield first, second

    return Attack(name, change)


def _open_string(prompt: str) -> int | None:
    """Return where the string that a prompt has open begins; None without one that has text."""
    opener, start = (open_ends(prompt) or [("", 0)])[-1]
    return start if opener in _QUOTES and prompt[start:].strip() else None


def comment(unit: str, strength: int) -> str:
    """Return a comment that repeats `unit`; it ends in a word, to keep the last token intact."""
    return f"#{unit * strength}{FILLER}"


def neutral_lines(rng: Random, count: int) -> list[str]:
    """Return lines of top-level code without quotes, square brackets or blocks.

    Args:
        rng: source of random draws.
        count: number of lines.
    """
    chosen_lines: list[str] = []
    while len(chosen_lines) < count:
        lines = lines_before(rng)[0].splitlines()
        chosen_lines += [line.strip() for line in lines if not line.endswith(":")]
    return chosen_lines[:count]


def _before(pair: Pair, text: str) -> Prompts:
    """Return the prompts of a pair with the same text in front of both."""
    return text + pair.prompts[0], text + pair.prompts[1]


def _more_code(pair: Pair, strength: int, rng: Random) -> Iterator[Prompts]:
    """Put lines of neutral code before the prompt."""
    yield _before(pair, "".join(f"{line}\n" for line in neutral_lines(rng, strength)))


def _lengthen(pair: Pair, strength: int, rng: Random) -> Iterator[Prompts]:
    """Insert elements at the start of the open list, or words at the start of the open string."""
    open_parts = [open_ends(prompt) for prompt in pair.prompts]
    if not all(open_parts):
        return
    (opener, start), (other_opener, other_start) = open_parts[0][-1], open_parts[1][-1]
    prompt, other = pair.prompts
    if not (prompt[start:].strip() and other[other_start:].strip()):
        return
    if opener == other_opener == "[":
        added = f"{elements(rng, strength, strength)}, "
    elif opener in _QUOTES and other_opener in _QUOTES:
        added = "".join(f"{rng.choice(WORDS)} " for _ in range(strength))
    else:
        return
    yield (
        prompt[:start] + added + prompt[start:],
        other[:other_start] + added + other[other_start:],
    )


def _repeat(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
    """Repeat a line before the last one, the first that can be repeated."""
    lines, other = (prompt.split("\n") for prompt in pair.prompts)
    for i in range(min(len(lines), len(other)) - 1):
        if lines[i].strip() and other[i].strip():
            yield _repeated(lines, i, strength), _repeated(other, i, strength)


def _repeated(lines: list[str], i: int, strength: int) -> str:
    """Return the text of lines of which line i is repeated `strength` times."""
    return "\n".join([*lines[: i + 1], *[lines[i]] * strength, *lines[i + 1 :]])


def _decoy(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
    """Put the other prompt's last line in comments before the prompt."""
    last_lines = [prompt.strip().rpartition("\n")[2].strip() for prompt in pair.prompts]
    comments = [f"# {line}\n" * strength for line in reversed(last_lines)]
    yield comments[0] + pair.prompts[0], comments[1] + pair.prompts[1]


_ASSIGNED = re.compile(r"( *)(\w+)( = .+)")
"""Indentation, name and value of an assignment."""


def _other_name(pair: Pair, strength: int, rng: Random) -> Iterator[Prompts]:
    """Assign the other prompt's value to other names, right after the line where they differ."""
    lines, other = (prompt.split("\n") for prompt in pair.prompts)
    for end in range(1, min(len(lines), len(other))):  # lines after the assignment
        first, second = (_ASSIGNED.fullmatch(own[-end - 1]) for own in (lines, other))
        if first is None or second is None or first[0] == second[0] or first[2] != second[2]:
            continue
        free = [word for word in WORDS if not any(word in prompt for prompt in pair.prompts)]
        if strength <= len(free):
            names = rng.sample(free, strength)
            yield (
                _with_lines(lines, end, [f"{first[1]}{name}{second[3]}" for name in names]),
                _with_lines(other, end, [f"{second[1]}{name}{first[3]}" for name in names]),
            )
        return


def _with_lines(lines: Sequence[str], end: int, added: Sequence[str]) -> str:
    """Return the text of lines with others added before the last `end` lines."""
    return "\n".join([*lines[:-end], *added, *lines[-end:]])


COMMENT = insert(FILLER, "plain words in a comment")
NEUTRAL = Attack("neutral code before", _more_code)
LENGTHEN = Attack("longer row or string", _lengthen)
REPEAT = Attack("an earlier line repeated", _repeat)
DECOY = Attack("the other prompt's line in a comment", _decoy)

OTHER_NAME = Attack("the other value under another name", _other_name)

GENERIC = (NEUTRAL, COMMENT, LENGTHEN, REPEAT, DECOY, OTHER_NAME)
"""Attacks for any task; those that do not apply to a pair are skipped."""


_QUOTES = ("'", '"', "'''", '"""')
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_PIECE = re.compile(r"'''|\"\"\"|['\"()\[\]{}#\n]|\\.", re.DOTALL)


def open_ends(text: str) -> list[tuple[str, int]]:
    """Return the brackets and quotes that are open at the end of code, outermost first.

    Returns:
        Each opener with the position after it. Openers in comments do not count.
    """
    stack: list[tuple[str, int]] = []
    in_comment = False
    for match in _PIECE.finditer(text):
        piece, inner = match[0], stack[-1][0] if stack else ""
        if in_comment:
            in_comment = not piece.endswith("\n")
        elif inner in _QUOTES:
            if piece == inner or (len(inner) == 1 and piece[0] in (inner, "\n")):
                stack.pop()
        elif piece == "#":
            in_comment = True
        elif piece in _QUOTES or piece in _CLOSERS:
            stack.append((piece, match.end()))
        elif inner and piece == _CLOSERS[inner]:
            stack.pop()
    return stack


_ENDS = ("", " pass", " x", ": pass", " x: pass", "(x): pass", f"\n{' ' * 80}pass")
"""Ways to complete a program prefix."""


def keeps_answers(before: Pair, after: Pair) -> bool:
    """Return whether the parser's result for each prompt with each answer is unchanged."""
    return before.answers == after.answers and _verdicts(before) == _verdicts(after)


@lru_cache(maxsize=4096)
def _verdicts(pair: Pair) -> tuple[bool, ...]:
    """Return whether each prompt with each answer can be completed, without and with closing."""
    prefixes = [prompt + answer for prompt in pair.prompts for answer in pair.answers]
    return tuple(can_end(prefix, closing) for prefix in prefixes for closing in (False, True))


def can_end(text: str, closing: bool = False) -> bool:
    """Return whether a program prefix can be completed to code that parses, in a few ways.

    Args:
        text: the prefix.
        closing: first close open brackets and quotes; a more permissive check.
    """
    closers = [_CLOSERS.get(opener, opener) for opener, _ in reversed(open_ends(text))]
    close = "".join(closers) if closing else ""
    return any(_parses(text + close + end) for end in _ENDS)


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings do not matter here
            ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
