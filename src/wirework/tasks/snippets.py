"""Names and lines of realistic Python code, the building blocks of the built-in tasks.

Lines before a prompt contain no quotes and no square brackets, so that only the last statement of
the prompt determines the answer. All random draws use the generator that is passed in.
"""

from random import Random

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


def code_before(rng: Random, *, inside: bool = False) -> tuple[str, str]:
    """Return some lines of code that end at top level, in a block, a function or a method.

    Args:
        rng: random generator.
        inside: end in a function or method, where `return` is allowed.

    Returns:
        The text, ending in a line break, and the indentation of the next line: none, four or eight
        spaces.
    """
    top = [top_line(rng) for _ in range(rng.randint(1, 2))]
    heads = _heads(rng, inside)
    if heads and heads[0].startswith(("def", "class")):
        top[-1] += "\n" * rng.choice((1, 2, 2))
    indent = " " * 4 * len(heads)
    inner = [f"{' ' * 4 * depth}{head}" for depth, head in enumerate(heads)]
    inner += [f"{indent}{line(rng)}" for _ in range(rng.randint(0, 1))]
    return "".join(f"{text}\n" for text in top + inner), indent


def lines_before(rng: Random) -> tuple[str, str]:
    """Return some lines of code and the indentation of the next line.

    Simpler than `code_before`. The oldest tasks use it, so that their pairs do not change and old
    circuits can still be checked on them.

    Returns:
        The text, ending in a line break, and the indentation, none or four spaces.
    """
    head = [top_line(rng) for _ in range(2)]
    indent = ""
    if rng.random() < 0.3:
        arguments = ", ".join(rng.sample(NAMES, rng.randint(1, 2)))
        head.append(f"def {rng.choice(FUNCTIONS)}({arguments}):")
        indent = "    "
    head += [f"{indent}{statement(rng)}" for _ in range(rng.randint(0, 1))]
    return "".join(f"{text}\n" for text in head), indent


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


def _heads(rng: Random, inside: bool) -> list[str]:
    """Return the lines that open the blocks around the next line, outermost first."""
    function = f"def {rng.choice(FUNCTIONS)}_{rng.choice(NAMES)}({', '.join(names(rng, 0, 2))}):"
    head = f"class {rng.choice(NAMES).title()}{rng.choice(_SUFFIXES)}:"
    method = f"def {rng.choice(FUNCTIONS)}({', '.join(['self', *names(rng, 0, 1)])}):"
    places = [[function], [function], [head, method], [function, _block(rng)]]
    return rng.choice(places if inside else [[], [], [], [_block(rng)], *places])


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
