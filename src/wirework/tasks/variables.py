"""Tasks on variables: their type and their identity. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import ANSWER_NAMES, NAMES, code_before, evened, filled, line
from wirework.tasks.task import Pair

_LOOPS = (
    "for {name} in {other}:",
    "for {name} in {other}.{third}:",
    "for {name} in {function}({other}):",
    "for {name}, {other} in {third}:",
    "while {name} < {number}:",
)
_LOOP_CONDITIONS = ("if {name}:", "if {name} > {digit}:", "if {name}.{other}:")
_VALUES = ("{number}", "{name}.{other}", "len({name})")
_SWAPS = ("{x}, {y} = {y},", "({x}, {y}) = ({y},", "{x}, {y} = ({y},", "({x}, {y}) = {y},")
"""Swaps of two variables up to their last name; plain ones are drawn more often."""
_BEFORE_SWAP = ("", "", "", "if {x} > {y}:", "while {x} < {y}:")


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
    context = code_before(rng)
    head, indent = context.text, context.indent
    x, y = rng.sample((*ANSWER_NAMES, "x", "y"), 2)
    if rng.random() < 0.4:
        values = [filled(rng, rng.choice(_VALUES)) for _ in range(2)]
        head += f"{indent}{x} = {values[0]}\n{indent}{y} = {values[1]}\n"
    before, swap = rng.choice(_BEFORE_SWAP), rng.choice((_SWAPS[0], *_SWAPS))
    if before:
        head += f"{indent}{before.format(x=x, y=y)}\n"
        indent += "    "
    head += indent
    return Pair(
        (f"{head}{swap.format(x=x, y=y)}", f"{head}{swap.format(x=y, y=x)}"),
        (f" {x}", f" {y}"),
        f"{before} {swap}".strip(),
    )


def _set_or_string(rng: Random, name: str) -> Pair:
    context = code_before(rng)
    indent = context.indent
    begin = f"{context.text}{indent}{name} ="
    after = "".join(
        f"{indent}{text}\n" for text in _other_lines(rng, name, int(rng.random() < 0.15))
    )
    loop = rng.choice(_LOOPS)
    for head in [loop, rng.choice(_LOOP_CONDITIONS)] if rng.random() < 0.1 else [loop]:
        after += f"{indent}{_without(rng, head, name)}\n"
        indent += "    "
    inner = int(rng.random() < 0.1)
    after += "".join(f"{indent}{text}\n" for text in _other_lines(rng, name, inner))
    empty = rng.choice(('""', '""', "''"))
    end = f"\n{after}{indent}{name}"
    return Pair(evened(rng, f"{begin} set(){end}", f"{begin} {empty}{end}"), (".add", " +="), loop)


def _without(rng: Random, form: str, name: str) -> str:
    """Return a form filled with names other than this one."""
    while name in (text := filled(rng, form)):
        pass
    return text


def _other_lines(rng: Random, name: str, count: int) -> list[str]:
    """Return lines that do not touch the variable `name`."""
    lines: list[str] = []
    while len(lines) < count:
        text = line(rng)
        if name not in text:
            lines.append(text)
    return lines
