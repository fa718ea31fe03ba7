"""Tasks on loops. Source: Gao et al. 2025, Table 1.

An answer contains the line break where code usually has one after it: `:` and the line break are
one token, and `:` alone is a rare token.
"""

from random import Random

from wirework.tasks.snippets import (
    FUNCTIONS,
    NAMES,
    body,
    code_before,
    evened,
    filled,
    line,
    lines_before,
    names,
    opening,
)
from wirework.tasks.task import Pair

_LOOP_NAMES = (
    "{name}", "{name}", "{name}", "{name}_{other}", "{name}_{other}", "new_{name}", "is_{name}",
    "has_{name}", "{function}_{name}", "n_{name}",
)  # fmt: skip
"""Names that may follow both `for` and `while`."""

_ITERABLES = (
    "{name}",
    "{name}.{other}",
    "{name}_{other}",
    "{function}({name})",
    "{name}.{function}({other})",
    "zip({name}, {other})",
    "sorted({name})",
)

_LOOP_STARTS = (
    "for ",
    "for ",
    "for ",
    "{name}_list = [{function}(index) for ",
    "print(value for ",
    "{name} = sum({other} for ",
    "{name}.{function}(index for ",
)
"""Loops and comprehensions up to their variables."""


def for_while(rng: Random) -> Pair:
    """Continue with ` in` after the variable of a `for` loop, with `:` after a `while` loop's.

    The prompts differ in the keyword. Table 1 has `:` without the line break; here the two are one
    token, and `:` alone never follows the condition of a `while` loop in real code.
    """
    context, form = lines_before(rng), rng.choice(_LOOP_NAMES)
    head, name = f"{context.text}{context.indent}", filled(rng, form)
    return Pair((f"{head}for {name}", f"{head}while {name}"), (" in", ":\n"), form)


def indent_for(rng: Random) -> Pair:
    """Indent the line after a `for` line by four more spaces.

    The prompts differ in the four spaces before the loop. The answer is one space shorter than the
    indentation, because the tokeniser joins the last space to the next word.
    """
    head = f"def {rng.choice(FUNCTIONS)}_{rng.choice(NAMES)}({', '.join(names(rng, 0, 2))}):"
    lines = opening(rng)
    lines[-1] += rng.choice(("", "\n"))
    lines += [head, *(f"    {line(rng)}" for _ in range(rng.randint(0, 1)))]
    if rng.random() < 0.5:
        lines += [f"    if {rng.choice(NAMES)}:", f"        {body(rng)}"]
    else:
        lines.append(f"    {body(rng)}")
    before = "".join(f"{text}\n" for text in lines) + rng.choice(("", "", "\n"))
    iterable = rng.choice(_ITERABLES)
    loop = f"for {', '.join(names(rng, 1, 2))} in {filled(rng, iterable)}:\n"
    return Pair((f"{before}{loop}", f"{before}    {loop}"), ("   ", "       "), iterable)


def enumerate_range(rng: Random) -> Pair:
    """Continue with ` enumerate` if a loop has an index and an element, else with ` range`.

    The prompts differ in the variable of the element. Both answers are valid Python after both
    prompts.
    """
    context, form = code_before(rng), rng.choice(_LOOP_STARTS)
    index = _index(rng)
    element = rng.choice([name for name in NAMES if name != index])
    head = f"{context.text}{context.indent}{filled(rng, form)}{index}"
    prompts = evened(rng, f"{head}, {element} in", f"{head} in")
    return Pair(prompts, (" enumerate", " range"), form)


def while_return_true(rng: Random) -> Pair:
    """Continue with a colon and line break after `while True`, a line break after `return True`.

    The prompts differ in the keyword.
    """
    context = code_before(rng, inside=True)
    text, indent, place = context
    if rng.random() < 0.4:
        text += f"{indent}if {filled(rng, '{name}')}:\n"
        indent, place = f"{indent}    ", f"if in {place}"
    head = f"{text}{indent}"
    return Pair((f"{head}while True", f"{head}return True"), (":\n", "\n"), place)


def _index(rng: Random) -> str:
    short = rng.choice(("i", "j", "k", "n", "idx"))
    return rng.choice((short, short, rng.choice(("index", "count", "level", "offset", "size"))))
