"""Names and lines of realistic Python code, the building blocks of the built-in tasks.

Lines before a prompt contain no quotes and no square brackets, so that only the last statement of
the prompt determines the answer. A prompt begins with an import that is directly followed by a
statement; the corpus `programs` always has an empty line there, so that no prompt occurs in it. All
random draws use the generator that is passed in.
"""

import re
from random import Random
from typing import NamedTuple

NAMES = (
    "name", "value", "path", "data", "size", "key", "index", "result", "item", "text", "line",
    "count", "user", "node", "field", "label", "token", "config", "output", "total", "offset",
    "width", "height", "start", "end", "level", "state", "mode", "message", "request", "response",
    "file", "table", "column", "query", "score", "limit", "parent", "child", "source", "target",
)  # fmt: skip
"""Variables."""

FUNCTIONS = (
    "load", "save", "run", "update", "check", "parse", "format", "get", "find", "make", "build",
    "read", "write", "process", "compute", "convert", "register", "create", "open", "resolve",
)  # fmt: skip
"""Functions and methods."""

MODULES = (
    "os", "sys", "re", "json", "time", "math", "random", "logging", "collections", "functools",
    "itertools", "pathlib", "typing", "threading", "subprocess", "shutil", "copy", "struct",
)  # fmt: skip
"""Modules to import."""

WORDS = (
    "missing", "value", "not", "found", "invalid", "name", "file", "error", "start", "done",
    "user", "data", "empty", "result", "path", "input", "loading", "unknown", "key", "hello",
    "world", "ready", "failed", "option", "type", "default", "message", "count", "the", "new",
)  # fmt: skip
"""Words of strings and comments; each ends in a letter, so that an answer is a token of its own."""


ANSWER_NAMES = ("name", "value", "path", "data", "size", "key", "index")
"""The names that are one token after a space in our tokeniser (`wirework.data.answers`),
for the tasks whose answer is a name."""

FILE_NAMES = ("source", "target", "output", "result")
"""The names that suggest whether a file is read or written."""

_SUFFIXES = ("", "", "Base", "Manager", "(object)")
_TOKEN = re.compile(r"\w+|[^\w\s]+|\n")
"""About one token of our tokenisers."""
_MOST_IMPORTS = 4
"""Largest number of added import lines."""


class Context(NamedTuple):
    """Lines of code before the statement that decides the answer."""

    text: str
    """The lines, ending in a line break."""
    indent: str
    """Indentation of the next line: none, four or eight spaces."""
    place: str
    """Where the lines end: `top level`, `block`, `function`, `method` or `block in function`."""


def filled(rng: Random, form: str) -> str:
    """Fill the placeholders of a form.

    Args:
        rng: random generator.
        form: text with `{name}`, `{other}` and `{third}` (distinct variables), `{function}`,
            `{digit}` or `{number}`.
    """
    name, other, third = rng.sample(NAMES, 3)
    return form.format(
        name=name,
        other=other,
        third=third,
        function=rng.choice(FUNCTIONS),
        digit=rng.randint(0, 9),
        number=rng.randint(0, 99),
    )


def evened(rng: Random, first: str, second: str) -> tuple[str, str]:
    """Vary the length of two prompts that differ in it, so that length tells little.

    Import lines are added after the first line of both prompts, as many to the one as to the other
    on average: neither their number nor, by much, the length of a prompt tells its answer. The more
    tokens the prompts differ by, the more lines there may be.
    """
    lengths = [len(_TOKEN.findall(prompt)) for prompt in (first, second)]
    difference = abs(lengths[0] - lengths[1])
    if difference == 0:
        return first, second
    most = min(difference, _MOST_IMPORTS)
    return _with_imports(rng, first, most), _with_imports(rng, second, most)


def _with_imports(rng: Random, prompt: str, most: int) -> str:
    """Add up to `most` import lines after the first line."""
    added = "".join(f"import {module}\n" for module in rng.sample(MODULES, rng.randint(0, most)))
    head, _, rest = prompt.partition("\n")
    return f"{head}\n{added}{rest}"


def opening(rng: Random) -> list[str]:
    """Return the first two lines of a prompt: an import and a statement."""
    module = rng.choice(MODULES)
    form = f"from {module} import {rng.choice(FUNCTIONS)}" if rng.random() < 0.3 else None
    return [form or f"import {module}", statement(rng)]


def words(rng: Random, max_count: int) -> str:
    """Return one to `max_count` words, separated by spaces."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, max_count)))


def elements(rng: Random, min_count: int, max_count: int) -> str:
    """Return a comma-separated row of small numbers or of names."""
    count = rng.randint(min_count, max_count)
    if rng.random() < 0.5:
        return ", ".join(str(rng.randint(0, 99)) for _ in range(count))
    return ", ".join(rng.choice(NAMES) for _ in range(count))


def body(rng: Random) -> str:
    """Return a line that can be the only line of a block: not a comment."""
    while (text := line(rng)).startswith("#"):
        pass
    return text


def names(rng: Random, min_count: int, max_count: int) -> list[str]:
    """Return distinct variables, `min_count` to `max_count` of them."""
    return rng.sample(NAMES, rng.randint(min_count, max_count))


def code_before(rng: Random, *, inside: bool = False) -> Context:
    """Return some lines of code that end at top level, in a block, a function or a method.

    Args:
        rng: random generator.
        inside: end in a function or method, where `return` is allowed.
    """
    top = opening(rng)
    place, heads = _heads(rng, inside)
    if heads and heads[0].startswith(("def", "class")):
        top[-1] += "\n" * rng.choice((1, 2, 2))
    indent = " " * 4 * len(heads)
    inner = [f"{' ' * 4 * depth}{head}" for depth, head in enumerate(heads)]
    inner += [f"{indent}{line(rng)}" for _ in range(rng.randint(0, 1))]
    return Context("".join(f"{text}\n" for text in top + inner), indent, place)


def lines_before(rng: Random) -> Context:
    """Return some lines of code, simpler than those of `code_before`."""
    head = opening(rng)
    indent = ""
    if rng.random() < 0.3:
        arguments = ", ".join(rng.sample(NAMES, rng.randint(1, 2)))
        head.append(f"def {rng.choice(FUNCTIONS)}({arguments}):")
        indent = "    "
    head += [f"{indent}{statement(rng)}" for _ in range(rng.randint(0, 1))]
    place = "function" if indent else "top level"
    return Context("".join(f"{text}\n" for text in head), indent, place)


def top_line(rng: Random) -> str:
    """Return an import, a plain statement or a comment."""
    if rng.random() < 0.4:
        return f"import {rng.choice(MODULES)}"
    return statement(rng)


def statement(rng: Random) -> str:
    """Return an assignment, a call or a comment."""
    left, right, other = rng.sample(NAMES, 3)
    function = rng.choice(FUNCTIONS)
    return rng.choice(
        (
            f"{left} = {rng.randint(0, 100)}",
            f"{left} = {right}.{other}",
            f"{left} = {function}({right})",
            f"{left} = {right}.{function}({other})",
            f"{left} = {right} + {rng.randint(1, 9)}",
            f"{left}.{function}({right}, {other})",
            f"# {words(rng, 3)}",
        )
    )


def _heads(rng: Random, inside: bool) -> tuple[str, list[str]]:
    """Return the place, and the lines that open the blocks around it, outermost first."""
    function = f"def {rng.choice(FUNCTIONS)}_{rng.choice(NAMES)}({', '.join(names(rng, 0, 2))}):"
    head = f"class {rng.choice(NAMES).title()}{rng.choice(_SUFFIXES)}:"
    method = f"def {rng.choice(FUNCTIONS)}({', '.join(['self', *names(rng, 0, 1)])}):"
    places = [
        ("function", [function]),
        ("function", [function]),
        ("method", [head, method]),
        ("block in function", [function, _block(rng)]),
    ]
    outside: list[tuple[str, list[str]]] = [("top level", [])] * 3 + [("block", [_block(rng)])]
    return rng.choice(places if inside else outside + places)


def _block(rng: Random) -> str:
    left, right, other = rng.sample(NAMES, 3)
    return rng.choice(
        (
            f"for {left} in {right}:",
            f"for {left} in {right}.{other}:",
            f"while {left} < {rng.randint(1, 100)}:",
            f"if {left}:",
            f"if {left}.{right}:",
            f"if {left} > {right}:",
        )
    )


def line(rng: Random) -> str:
    """Return a statement or comment that is irrelevant to the answer."""
    left, right, other = rng.sample(NAMES, 3)
    function = rng.choice(FUNCTIONS)
    return rng.choice(
        (
            statement(rng),
            f"{left} += {rng.randint(1, 9)}",
            f"{left} = {right} * {other}",
            f"{left} = {function}_{right}({other}, {rng.randint(0, 99)})",
            f"{left} = len({right})",
            f"{left} = max({right}, {other})",
            f"{left}.append({right})",
            f"{left} = {right}.{other}.{function}()",
            f"{function}_{left}({right}, {other})",
            f"print({left}, {right})",
            f"# {words(rng, 4)}",
        )
    )
