"""Tasks on lists and dicts: nesting depth, list or dict. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import NAMES, code_before, elements, evened, filled, lines_before
from wirework.tasks.task import Pair

_LISTS = (
    "{name} = ",
    "{name}_list = ",
    "{name} += ",
    "{name}.{other} = ",
    "{name} = {other} + ",
    "{function}_{name} = ",
    "return ",
    "assert {name} == ",
)
"""Statements up to a list."""

_COLLECTIONS = (
    "{name} = ",
    "{name}.{other} = ",
    "{name}_{other} = ",
    "{name} = {function}(",
    "{function}_{name}({other}, ",
    "return ",
)
"""Statements up to a list or dict."""


def bracket_counting(rng: Random) -> Pair:
    """Close a list with `]` at the end of a line, or a nested list with `]]`.

    The prompts differ in one more opening bracket in the second. Table 1 has the brackets without
    the line break; here they are one token with it, and a line rarely goes on after its list.
    """
    context, form = lines_before(rng), rng.choice(_LISTS)
    head = f"{context.text}{context.indent}{filled(rng, form)}"
    row = elements(rng, 2, 4)
    if rng.random() < 0.3:  # an earlier closed row: `[[1, 2], [3` and the tuple `[1, 2], [3`
        row = f"{elements(rng, 1, 2)}], [{row}"
    return Pair(evened(rng, f"{head}[{row}", f"{head}[[{row}"), ("]\n", "]]\n"), form)


def bracket_brace(rng: Random) -> Pair:
    """Continue with `:` after a key of a dict, with `,` after an element of a list.

    The prompts differ in the opening bracket and in the separators of earlier items. There is at
    least one earlier item, because `{1,` could begin a set.
    """
    form = rng.choice(_COLLECTIONS)
    context = code_before(rng, inside=form == "return ")
    head = f"{context.text}{context.indent}{filled(rng, form)}"
    items, last = _items(rng)
    keyed = "".join(f"{key}: {value}, " for key, value in items)
    listed = "".join(f"{key}, {value}, " for key, value in items)
    return Pair((f"{head}{{{keyed}{last}", f"{head}[{listed}{last}"), (":", ","), form)


def _items(rng: Random) -> tuple[list[tuple[str, str]], str]:
    """Return one to three (key, value) pairs, and one more key."""
    count = rng.randint(1, 3)
    if rng.random() < 0.5:
        keys = [str(key) for key in rng.sample(range(100), count + 1)]
    else:
        keys = rng.sample(NAMES, count + 1)
    numbers = rng.random() < 0.5
    values = [str(rng.randint(0, 99)) if numbers else rng.choice(NAMES) for _ in range(count)]
    return list(zip(keys[:-1], values, strict=True)), keys[-1]
