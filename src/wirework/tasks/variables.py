"""Tasks on variables: their type and their identity. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import ANSWER_NAMES, FUNCTIONS, NAMES, code_before, line
from wirework.tasks.task import Pair


def set_or_string(rng: Random) -> Pair:
    """Continue with `.add` for a variable initialised as `set()`, with ` +=` for one set to `""`.

    The prompts differ in the initial value, some lines before the variable is used. Both answers
    are syntactically valid after both prompts.
    """
    return _set_or_string(rng, rng.choice(NAMES))


def set_or_string_fixedvarname(rng: Random) -> Pair:
    """Return a pair of `set_or_string` whose variable is always called `current`."""
    return _set_or_string(rng, "current")


def var_swap(rng: Random) -> Pair:
    """Complete a swap of two variables: the last name of `x, y = y, x` is the first name.

    The prompts differ in the order of the names.
    """
    before, indent = code_before(rng)
    x, y = rng.sample((*ANSWER_NAMES, "x", "y"), 2)
    head = before
    if rng.random() < 0.4:
        head += f"{indent}{x} = {_value(rng)}\n{indent}{y} = {_value(rng)}\n"
    if rng.random() < 0.3:
        head += f"{indent}if {x} > {y}:\n"
        indent += "    "
    head += indent
    return Pair((f"{head}{x}, {y} = {y},", f"{head}{y}, {x} = {x},"), (f" {x}", f" {y}"))


def _set_or_string(rng: Random, name: str) -> Pair:
    before, indent = code_before(rng)
    begin = f"{before}{indent}{name} ="
    after = "".join(f"{indent}{text}\n" for text in _other_lines(rng, name, rng.randint(0, 1)))
    for head in _loop_heads(rng, name):
        after += f"{indent}{head}\n"
        indent += "    "
    inner = rng.choice((0, 0, 1))
    after += "".join(f"{indent}{text}\n" for text in _other_lines(rng, name, inner))
    empty = rng.choice(('""', '""', "''"))
    end = f"\n{after}{indent}{name}"
    return Pair((f"{begin} set(){end}", f"{begin} {empty}{end}"), (".add", " +="))


def _other_lines(rng: Random, name: str, count: int) -> list[str]:
    """Return lines that do not touch the variable `name`."""
    lines: list[str] = []
    while len(lines) < count:
        text = line(rng)
        if name not in text:
            lines.append(text)
    return lines


def _loop_heads(rng: Random, name: str) -> list[str]:
    """Return the first line of a loop, and sometimes of a condition inside it."""
    left, right, other = rng.sample([candidate for candidate in NAMES if candidate != name], 3)
    function = rng.choice(FUNCTIONS)
    loop = rng.choice(
        (
            f"for {left} in {right}:",
            f"for {left} in {right}.{other}:",
            f"for {left} in {function}({right}):",
            f"for {left}, {other} in {right}:",
            f"while {left} < {rng.randint(1, 100)}:",
        )
    )
    condition = rng.choice((f"if {left}:", f"if {left} > {rng.randint(0, 9)}:", f"if {other}:"))
    return [loop, condition] if rng.random() < 0.3 else [loop]


def _value(rng: Random) -> str:
    name = rng.choice(NAMES)
    return rng.choice((str(rng.randint(0, 99)), f"{name}.{rng.choice(NAMES)}", f"len({name})"))
