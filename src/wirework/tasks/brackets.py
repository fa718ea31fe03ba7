"""Tasks on lists and dicts: nesting depth, list or dict. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import FUNCTIONS, NAMES, code_before, elements, lines_before
from wirework.tasks.task import Pair


def bracket_counting(rng: Random) -> Pair:
    """Close a list with `]`, or a nested list with `]]`.

    The prompts differ in one more opening bracket in the second.
    """
    before, indent = lines_before(rng)
    head, row = f"{before}{indent}{_list_head(rng)}", elements(rng, 2, 4)
    if rng.random() < 0.3:  # an earlier closed row: `[[1, 2], [3` and the tuple `[1, 2], [3`
        row = f"{elements(rng, 1, 2)}], [{row}"
    return Pair((f"{head}[{row}", f"{head}[[{row}"), ("]", "]]"))


def _list_head(rng: Random) -> str:
    name, other = rng.sample(NAMES, 2)
    return rng.choice(
        (
            f"{name} = ",
            f"{name}_list = ",
            f"{name} += ",
            f"{name}.{other} = ",
            f"{name} = {other} + ",
            f"{rng.choice(FUNCTIONS)}_{name} = ",
            "return ",
            f"assert {name} == ",
        )
    )


def bracket_brace(rng: Random) -> Pair:
    """Continue with `:` after a key of a dict, with `,` after an element of a list.

    The prompts differ in the opening bracket and in the separators of earlier items. There is at
    least one earlier item, because `{1,` could begin a set.
    """
    returned = rng.random() < 0.2
    before, indent = code_before(rng, inside=returned)
    head = f"{before}{indent}{'return ' if returned else _collection_head(rng)}"
    items, last = _items(rng)
    keyed = "".join(f"{key}: {value}, " for key, value in items)
    listed = "".join(f"{key}, {value}, " for key, value in items)
    return Pair((f"{head}{{{keyed}{last}", f"{head}[{listed}{last}"), (":", ","))


def _collection_head(rng: Random) -> str:
    name, other = rng.sample(NAMES, 2)
    return rng.choice(
        (
            f"{name} = ",
            f"{name} = ",
            f"{name}.{other} = ",
            f"{name}_{other} = ",
            f"{name} = {rng.choice(FUNCTIONS)}(",
            f"{rng.choice(FUNCTIONS)}_{name}({other}, ",
        )
    )


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
