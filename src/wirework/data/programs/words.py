"""Word lists of the programs, and names made of them."""

from functools import cache
from pathlib import Path
from random import Random

from wirework.data.stories.notation import read_notation

_PATH = Path(__file__).parent / "words.txt"
_SKEW = 2.0
"""Skew of the draws: words at the beginning of a list are more frequent, as in real code."""
_GENERIC = 0.2
"""Share of variables whose name says nothing of their type."""
_QUALIFIED = 0.2
"""Share of variables whose name is a qualifier and a noun."""


@cache
def words() -> dict[str, tuple[str, ...]]:
    """Return the word lists by name."""
    return read_notation([_PATH.read_text(encoding="utf-8")])[0]


def word(rng: Random, name: str) -> str:
    """Return a word of a list, drawn more often if it is near the beginning."""
    options = words()[name]
    return options[int(len(options) * rng.random() ** _SKEW)]


def variable_name(rng: Random, kind: str, taken: set[str]) -> str:
    """Return a new name for a variable of a type."""
    is_plain = kind in ("loop", "short", "file", "fn", "rpath", "wpath")
    draw = 1.0 if is_plain else rng.random()
    name = word(rng, "generic_names" if draw < _GENERIC else f"{kind}_names")
    if _GENERIC <= draw < _GENERIC + _QUALIFIED and kind != "bool":
        name = f"{word(rng, 'qualifiers')}_{name}"
    while name in taken:
        name = f"{word(rng, 'qualifiers')}_{word(rng, f'{kind}_names')}"
    return name


def singular(plural: str) -> str | None:
    """Return the singular of a list's name, `user` for `new_users`; None if it has none."""
    noun = plural.rpartition(".")[2].rpartition("_")[2]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith("s") and not noun.endswith("ss") and len(noun) > 3:
        return noun[:-1]
    return None


def function_name(rng: Random, taken: set[str]) -> str:
    """Return a new name of a function, such as `load_users`."""
    while True:
        name = word(rng, "verbs")
        if rng.random() < 0.75:
            name = f"{name}_{word(rng, 'objects')}"
        if name not in taken and name not in _RESERVED:
            return name


_RESERVED = frozenset(("print", "open", "format", "filter", "sorted", "sum", "list", "log"))
"""Names that would hide a built-in function or a module."""


def class_name(rng: Random, taken: set[str]) -> str:
    """Return a new name of a class."""
    name = word(rng, "class_names")
    if rng.random() < 0.3:
        name = word(rng, "class_prefixes") + name
    while name in taken:
        name = word(rng, "class_prefixes") + word(rng, "class_names")
    return name


def phrase(rng: Random, name: str, most: int) -> str:
    """Return one to `most` words of a list."""
    options, random = words()[name], rng.random
    n_words = 1 + int(most * random())
    return " ".join([options[int(len(options) * random() ** _SKEW)] for _ in range(n_words)])
