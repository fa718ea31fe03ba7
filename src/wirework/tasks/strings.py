"""Tasks on strings: their end and their content. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import NAMES, code_before, evened, filled, lines_before, words
from wirework.tasks.task import Pair

_QUOTED_CALLS = (
    "print(",
    "{name} = {function}(",
    "{name} = {other}.{function}(",
    "{name}.append(",
    "{name}.{function}(",
    "{name}.{function}({other}, ",
    "{function}({name}, ",
    "return {function}(",
    "raise ValueError(",
    "logger.info(",
    "assert {name}.startswith(",
)
"""Calls up to their last argument, a string."""

_PRINTING_CALLS = (
    "print(",
    "print({name}, ",
    "logger.debug(",
    "logger.error(",
    "logging.info(",
    "logging.warning(",
    "{name}.log.info(",
    "{name}.write(",
    "raise ValueError(",
    "raise KeyError(",
)
"""Calls of functions that take a text and values, up to the text."""


def single_double_quote(rng: Random) -> Pair:
    """Close a string and its call with `')` or `")`, depending on the opening quote.

    The prompts differ in the opening quote.
    """
    context, form = lines_before(rng), rng.choice(_QUOTED_CALLS)
    opening, text = f"{context.text}{context.indent}{filled(rng, form)}", _content(rng)
    return Pair((f"{opening}'{text}", f'{opening}"{text}'), ("')", '")'), form)


def _content(rng: Random) -> str:
    if rng.random() < 0.3:
        return "_".join(rng.sample(NAMES, 2))
    return words(rng, 4)


def fstring_brace(rng: Random) -> Pair:
    """Continue an f-string with ` {`, end a plain string and its argument with `",`.

    The prompts differ in the `f`. Both answers are valid Python after both prompts, but an f-string
    without variables and a plain string with braces are mistakes.
    """
    context, form = code_before(rng), rng.choice(_PRINTING_CALLS)
    call, text = f"{context.text}{context.indent}{filled(rng, form)}", words(rng, 4)
    return Pair(evened(rng, f'{call}f"{text}', f'{call}"{text}'), (" {", '",'), form)
