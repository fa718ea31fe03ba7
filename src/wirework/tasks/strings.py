"""Tasks on strings: their end and their content. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import FUNCTIONS, NAMES, code_before, lines_before, words
from wirework.tasks.task import Pair


def single_double_quote(rng: Random) -> Pair:
    """Close a string and its call with `')` or `")`, depending on the opening quote.

    The prompts differ in the opening quote.
    """
    before, indent = lines_before(rng)
    opening, text = f"{before}{indent}{_quoted_call(rng)}", _content(rng)
    return Pair((f"{opening}'{text}", f'{opening}"{text}'), ("')", '")'))


def _quoted_call(rng: Random) -> str:
    """Return a call up to its last argument, a string."""
    name, other = rng.sample(NAMES, 2)
    function = rng.choice(FUNCTIONS)
    return rng.choice(
        (
            "print(",
            f"{name} = {function}(",
            f"{name} = {other}.{function}(",
            f"{name}.append(",
            f"{name}.{function}(",
            f"{name}.{function}({other}, ",
            f"{function}({name}, ",
            f"return {function}(",
            "raise ValueError(",
            "logger.info(",
            f"assert {name}.startswith(",
        )
    )


def _content(rng: Random) -> str:
    if rng.random() < 0.3:
        return "_".join(rng.sample(NAMES, 2))
    return words(rng, 4)


def fstring_brace(rng: Random) -> Pair:
    """Continue an f-string with ` {`, end a plain string and its argument with `",`.

    The prompts differ in the `f`. Both answers are valid Python after both prompts, but an f-string
    without variables and a plain string with braces are mistakes.
    """
    before, indent = code_before(rng)
    call, text = f"{before}{indent}{_printing_call(rng)}", words(rng, 4)
    return Pair((f'{call}f"{text}', f'{call}"{text}'), (" {", '",'))


def _printing_call(rng: Random) -> str:
    """Return a call of a function that takes a text and values, up to the text."""
    name = rng.choice(NAMES)
    level = rng.choice(("debug", "info", "warning", "error"))
    return rng.choice(
        (
            "print(",
            "print(",
            f"print({name}, ",
            f"logger.{level}(",
            f"logging.{level}(",
            f"{name}.log.{level}(",
            f"{name}.write(",
            f"raise {rng.choice(('Value', 'Type', 'Key', 'Runtime'))}Error(",
        )
    )
