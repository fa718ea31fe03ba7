"""An endless stream of generated programs in simple, idiomatic Python.

Gao et al. 2025 train on Python written by a language model, with the same aim: simple programs in
which strings are closed, lists nested and files opened for a reason. Here a grammar writes them
(grammar.py): imports, constants, functions, classes, and code that uses them. Variables have types,
so that most programs run. A program's imports are followed by an empty line.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from wirework.data.programs.definitions import class_definition, function, usage
from wirework.data.programs.scope import Scope, Style
from wirework.data.programs.slots import literal
from wirework.data.programs.statements import block
from wirework.data.programs.words import phrase, variable_name

DEFAULT_BYTES = 60_000_000
"""Bytes of the corpus `programs` without `max_bytes`."""

_FOLDER = Path(__file__).parent
_INDENT = "    "
_CONSTANT_TYPES = ("int", "int", "str", "str", "strs", "ints", "table")
_LOOSE_TYPES = ("int", "str", "strs", "ints")
"""Types of which code at the top level has a variable from the start."""


def programs(seed: int = 0) -> Iterator[str]:
    """Yield an endless stream of programs, a pure function of the seed."""
    rng = Random(f"programs {seed}")
    while True:
        yield program(rng)


def bounded(seed: int, n_bytes: int) -> Iterator[str]:
    """Yield the programs of a seed until they have at least `n_bytes` (UTF-8)."""
    for text in programs(seed):
        yield text
        n_bytes -= len(text)
        if n_bytes <= 0:
            return


def source_files() -> list[Path]:
    """Return every file that the text of a program depends on, sorted."""
    return sorted([*_FOLDER.glob("*.txt"), *_FOLDER.glob("*.py")])


def program(rng: Random) -> str:
    """Return one program, which ends with a line break."""
    style = Style(
        double_quotes=rng.choice((0.5, 0.5, 0.15, 0.85)),
        annotated=rng.random() < 0.08,
        docstrings=rng.choice((0.0, 0.0, 0.1, 0.5)),
    )
    scope = Scope(rng=rng, style=style, variables={}, imports=set(), functions=[])
    sections, uses = _definitions(scope)
    main = _main(scope, uses)
    head = [f"import {module}" for module in sorted(scope.imports)]
    docstring = [f'"""{phrase(rng, "comment_words", 5).capitalize()}."""'] * (
        rng.random() < style.docstrings
    )
    constants = sections.pop(0)
    parts = ["\n".join(lines) for lines in (docstring, head, constants) if lines]
    first = "\n\n".join(parts)
    sections_text = ["\n".join(lines) for lines in sections]
    return "\n\n\n".join([text for text in (first, *sections_text, main) if text]) + "\n"


def _definitions(scope: Scope) -> tuple[list[list[str]], list[list[str]]]:
    """Return the constants, functions and classes as lines, and lines that use the classes."""
    rng = scope.rng
    constants: list[str] = []
    if rng.random() < 0.3:
        for _ in range(1 + rng.randrange(3)):
            kind = rng.choice(_CONSTANT_TYPES)
            name = variable_name(rng, kind, scope.taken).upper()
            constants.append(f"{name} = {literal(scope, kind)}")
            scope.taken.add(name)
    sections, uses = [constants], list[list[str]]()
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        if rng.random() < 0.25:
            lines, use = class_definition(scope)
            sections.append(lines)
            uses.append(use)
        else:
            sections.append(function(scope))
    return sections, uses


def _main(scope: Scope, uses: list[list[str]]) -> str:
    """Return the code that runs the program: at top level, or in a function `main`."""
    rng = scope.rng
    is_function = len(scope.functions) > 0 and rng.random() < 0.25
    if is_function:
        inner = scope.fresh()
        inner.depth = 1
    else:
        inner = scope
    lines: list[str] = []
    for kind in rng.sample(_LOOSE_TYPES, 1 + rng.randrange(3)):
        name = variable_name(rng, kind, inner.taken)
        lines.append(f"{name} = {literal(inner, kind)}")
        inner.declare(kind, name)
    for signature in scope.functions:
        lines += usage(inner, signature)
    lines += [line for use in uses for line in use]
    lines += block(inner, 6)
    if not is_function:
        return "\n".join(lines)
    body = "\n".join(_INDENT + line for line in lines)
    return f'def main():\n{body}\n\n\nif __name__ == "__main__":\n{_INDENT}main()'
