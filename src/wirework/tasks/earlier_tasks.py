"""Pairs of built-in tasks as versions up to 0.2 drew them, to check circuits that were found then.

`load_task` gives other pairs of these names now. Only the three oldest tasks are here: their pairs
were the same in all those versions.
"""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from wirework.tasks.built_in import Generator
from wirework.tasks.load import draw_pairs
from wirework.tasks.snippets import FUNCTIONS, NAMES, elements, statement, top_line, words
from wirework.tasks.task import Pair, Task


def earlier_task(name: str, seed: int, n: int) -> Task | None:
    """Return a built-in task with the pairs of versions up to 0.2; None for other names.

    Args:
        name: name of the task.
        seed: seed of its pairs.
        n: number of pairs.
    """
    make = EARLIER_TASKS.get(name)
    if make is None:
        return None
    return Task(name, draw_pairs(make, f"{name} {seed}", n), generated=True, seed=seed)


def _single_double_quote(rng: Random) -> Pair:
    before, indent = lines_before(rng)
    opening = f"{before}{indent}{_quoted_call(rng)}"
    text = "_".join(rng.sample(NAMES, 2)) if rng.random() < 0.3 else words(rng, 4)
    return Pair((f"{opening}'{text}", f'{opening}"{text}'), ("')", '")'))


def _quoted_call(rng: Random) -> str:
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


def _bracket_counting(rng: Random) -> Pair:
    before, indent = lines_before(rng)
    head, row = f"{before}{indent}{_list_head(rng)}", elements(rng, 2, 4)
    if rng.random() < 0.3:
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


def _for_while(rng: Random) -> Pair:
    before, indent = lines_before(rng)
    name = rng.choice(NAMES)
    if rng.random() < 0.4:
        name = f"{name}_{rng.choice(NAMES)}"
    head = f"{before}{indent}"
    return Pair((f"{head}for {name}", f"{head}while {name}"), (" in", ":"))


def lines_before(rng: Random) -> tuple[str, str]:
    """Return some lines of code, ending in a line break, and the indentation of the next line.

    Today's `snippets.lines_before` begins with an import; this one must never change.
    """
    head = [top_line(rng) for _ in range(2)]
    indent = ""
    if rng.random() < 0.3:
        arguments = ", ".join(rng.sample(NAMES, rng.randint(1, 2)))
        head.append(f"def {rng.choice(FUNCTIONS)}({arguments}):")
        indent = "    "
    head += [f"{indent}{statement(rng)}" for _ in range(rng.randint(0, 1))]
    return "".join(f"{text}\n" for text in head), indent


EARLIER_TASKS: Mapping[str, Generator] = MappingProxyType(
    {
        "single_double_quote": _single_double_quote,
        "bracket_counting": _bracket_counting,
        "for_while": _for_while,
    }
)
"""Generators of pairs as versions up to 0.2 drew them, by the name of the task."""
