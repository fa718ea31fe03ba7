"""Attacks: changes of a pair's prompts that leave the right answers right. Text in, text out.

The changed prompts are judged by Python's own parser: whether each prompt with each answer can be
gone on with to code that parses must be as before. What no attack touches decides the rest: the
last statement stays as it is, but for a longer row or string, and what comes before it is neutral
code, a line that was there already, or a comment, which never means anything.
Source: Gao et al. 2025, Fig. 8 (unmatched brackets in a comment, long lists).
"""

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from wirework.tasks import Pair
from wirework.tasks.snippets import WORDS, elements, lines_before

Prompts = tuple[str, str]

FILLER = " value"
"""The word between the tokens of an inserted comment."""


@dataclass(frozen=True)
class Attack:
    """A way to change prompts, more so at greater strength."""

    name: str
    change: Callable[[Pair, int, Random], Iterator[Prompts]]
    """Gives the ways to change a pair's prompts, best first; none where it does not apply."""

    def __call__(self, pair: Pair, strength: int, rng: Random) -> Pair | None:
        """Return the pair changed, or None where that cannot be done with the answers kept right.

        Args:
            pair: prompts and answers; the answers stay as they are.
            strength: how many elements, words, lines or tokens are added; 0 changes nothing.
            rng: what they are drawn from.
        """
        if not strength:
            return pair
        made = (Pair(prompts, pair.answers) for prompts in self.change(pair, strength, rng))
        return next((after for after in made if keeps_answers(pair, after)), None)


def insert(unit: str, name: str) -> Attack:
    """Return the attack that puts a comment line before the prompt, with a text repeated in it.

    Args:
        unit: what is repeated, without line breaks.
        name: of the attack.
    """

    def change(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
        yield _before(pair, f"{comment(unit, strength)}\n")

    return Attack(name, change)


def comment(unit: str, strength: int) -> str:
    """Return a comment in which `unit` is repeated; it ends in a word, so that nothing melts."""
    return f"#{unit * strength}{FILLER}"


def neutral_lines(rng: Random, count: int) -> list[str]:
    """Return lines of top-level code without quotes, square brackets or blocks."""
    chosen_lines: list[str] = []
    while len(chosen_lines) < count:
        lines = lines_before(rng)[0].splitlines()
        chosen_lines += [line.strip() for line in lines if not line.endswith(":")]
    return chosen_lines[:count]


def _before(pair: Pair, text: str) -> Prompts:
    return text + pair.prompts[0], text + pair.prompts[1]


def _more_code(pair: Pair, strength: int, rng: Random) -> Iterator[Prompts]:
    yield _before(pair, "".join(f"{line}\n" for line in neutral_lines(rng, strength)))


def _lengthen(pair: Pair, strength: int, rng: Random) -> Iterator[Prompts]:
    """Put elements at the front of the row, or words at the front of the string, that is open."""
    ends = [open_ends(prompt) for prompt in pair.prompts]
    if not all(ends):
        return
    (first, i), (second, j) = ends[0][-1], ends[1][-1]
    one, other = pair.prompts
    if not (one[i:].strip() and other[j:].strip()):
        return
    if first == second == "[":
        more = f"{elements(rng, strength, strength)}, "
    elif first in _QUOTES and second in _QUOTES:
        more = "".join(f"{rng.choice(WORDS)} " for _ in range(strength))
    else:
        return
    yield one[:i] + more + one[i:], other[:j] + more + other[j:]


def _repeat(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
    """Repeat one of the lines before the last, the first that can be."""
    one, other = (prompt.split("\n") for prompt in pair.prompts)
    for i in range(min(len(one), len(other)) - 1):
        if one[i].strip() and other[i].strip():
            yield _repeated(one, i, strength), _repeated(other, i, strength)


def _repeated(lines: list[str], i: int, strength: int) -> str:
    return "\n".join([*lines[: i + 1], *[lines[i]] * strength, *lines[i + 1 :]])


def _decoy(pair: Pair, strength: int, _: Random) -> Iterator[Prompts]:
    """Put the other prompt's last line in comments before."""
    tails = [prompt.strip().rpartition("\n")[2].strip() for prompt in pair.prompts]
    before = [f"# {tail}\n" * strength for tail in reversed(tails)]
    yield before[0] + pair.prompts[0], before[1] + pair.prompts[1]


COMMENT = insert(FILLER, "plain words in a comment")
NEUTRAL = Attack("neutral code before", _more_code)
LENGTHEN = Attack("longer row or string", _lengthen)
REPEAT = Attack("an earlier line repeated", _repeat)
DECOY = Attack("the other prompt's line in a comment", _decoy)

GENERIC = (NEUTRAL, COMMENT, LENGTHEN, REPEAT, DECOY)
"""Attacks of any task, each where it applies; `insert` needs to be told what."""


_QUOTES = ("'", '"', "'''", '"""')
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_PIECE = re.compile(r"'''|\"\"\"|['\"()\[\]{}#\n]|\\.", re.DOTALL)


def open_ends(text: str) -> list[tuple[str, int]]:
    """Return the brackets and quotes that are open at the end of code, outermost first.

    Returns:
        Each opener with the position behind it. A comment opens nothing.
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


def keeps_answers(before: Pair, after: Pair) -> bool:
    """Return whether the parser says the same of each prompt with each answer, before and after."""
    return before.answers == after.answers and _verdicts(before) == _verdicts(after)


@lru_cache(maxsize=4096)
def _verdicts(pair: Pair) -> tuple[bool, ...]:
    wholes = [prompt + answer for prompt in pair.prompts for answer in pair.answers]
    return tuple(can_end(whole, closing) for whole in wholes for closing in (False, True))


def can_end(text: str, closing: bool = False) -> bool:
    """Return whether the beginning of a program can be gone on with, in a few ways, to a whole.

    Args:
        text: the beginning.
        closing: first close what is open, which makes more of it possible and tells less.
    """
    closers = [_CLOSERS.get(opener, opener) for opener, _ in reversed(open_ends(text))]
    close = "".join(closers) if closing else ""
    return any(_parses(text + close + end) for end in _ENDS)


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes: what they are, strings, does no harm
            ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
