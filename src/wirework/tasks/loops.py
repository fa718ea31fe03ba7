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
    line,
    lines_before,
    names,
    top_line,
)
from wirework.tasks.task import Pair


def for_while(rng: Random) -> Pair:
    """Continue with ` in` after the variable of a `for` loop, with `:` after a `while` loop's.

    The prompts differ in the keyword. `:` has no line break, as in Table 1: it only needs to differ
    from ` in`.
    """
    before, indent = lines_before(rng)
    name = rng.choice(NAMES)
    if rng.random() < 0.4:
        name = f"{name}_{rng.choice(NAMES)}"
    head = f"{before}{indent}"
    return Pair((f"{head}for {name}", f"{head}while {name}"), (" in", ":"))


def indent_for(rng: Random) -> Pair:
    """Indent the line after a `for` line by four more spaces.

    The prompts differ in the four spaces before the loop. The answer is one space shorter than the
    indentation, because the tokeniser joins the last space to the next word.
    """
    head = f"def {rng.choice(FUNCTIONS)}_{rng.choice(NAMES)}({', '.join(names(rng, 0, 2))}):"
    lines = [top_line(rng) + rng.choice(("", "\n")), head]
    lines += [f"    {line(rng)}" for _ in range(rng.randint(0, 1))]
    if rng.random() < 0.5:
        lines += [f"    if {rng.choice(NAMES)}:", f"        {body(rng)}"]
    else:
        lines.append(f"    {body(rng)}")
    before = "".join(f"{text}\n" for text in lines) + rng.choice(("", "", "\n"))
    loop = f"for {_loop_variables(rng)} in {_iterable(rng)}:\n"
    return Pair((f"{before}{loop}", f"{before}    {loop}"), ("   ", "       "))


def enumerate_range(rng: Random) -> Pair:
    """Continue with ` enumerate` if a loop has an index and an element, else with ` range`.

    The prompts differ in the variable of the element. Both answers are valid Python after both
    prompts.
    """
    before, indent = code_before(rng)
    index = _index(rng)
    element = rng.choice([name for name in NAMES if name != index])
    head = f"{before}{indent}for {index}"
    return Pair((f"{head}, {element} in", f"{head} in"), (" enumerate", " range"))


def while_return_true(rng: Random) -> Pair:
    """Continue with a colon and line break after `while True`, a line break after `return True`.

    The prompts differ in the keyword.
    """
    before, indent = code_before(rng, inside=True)
    head = f"{before}{indent}"
    return Pair((f"{head}while True", f"{head}return True"), (":\n", "\n"))


def _index(rng: Random) -> str:
    short = rng.choice(("i", "j", "k", "n", "idx"))
    return rng.choice((short, short, rng.choice(("index", "count", "level", "offset", "size"))))


def _loop_variables(rng: Random) -> str:
    return ", ".join(names(rng, 1, 2))


def _iterable(rng: Random) -> str:
    name, other = rng.sample(NAMES, 2)
    return rng.choice(
        (
            name,
            f"{name}.{other}",
            f"{name}_{other}",
            f"{rng.choice(FUNCTIONS)}({name})",
            f"{name}.{rng.choice(FUNCTIONS)}({other})",
            f"zip({name}, {other})",
            f"sorted({name})",
        )
    )
