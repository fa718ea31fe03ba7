"""Slots of the grammar: variables, expressions and literals of one type."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from wirework.data.programs.grammar import Labels, Rule, Slot, draw_line, load_rules
from wirework.data.programs.scope import Scope, Signature
from wirework.data.programs.words import phrase, singular, variable_name, word

_MOST_EXPRESSIONS = 2
"""Largest depth of expressions inside expressions."""
_TRIES = 12
_OPERAND_VARIABLE = 0.7
"""Share of operands that are variables, if there is one."""
_CHARS = ('", "', "', '", '" "', '","', "','", '"-"', "'-'", '": "', '"\\n"', "'\\n'", '"/"', "'.'")
_COMPARISONS = (">", "<", ">", "<", ">=", "<=")
_OPERATORS = ("+", "*", "-")
_NONE: frozenset[str] = frozenset()
_LOG_LEVELS = ("info", "debug", "warning", "error")


@cache
def rules() -> dict[str, Rule]:
    """Return the compiled grammar."""
    return load_rules(Path(__file__).parent / "grammar.txt", _SLOTS)


def expression(scope: Scope, kind: str) -> str:
    """Return an expression of a type."""
    scope.expression_depth += 1
    try:
        productions = rules()[kind].productions
        for _ in range(_TRIES):
            line = productions[int(len(productions) * scope.rng.random())][0]
            if (text := draw_line(line, scope, {})) is not None:
                return text
        return literal(scope, kind)
    finally:
        scope.expression_depth -= 1


def operand(scope: Scope, kind: str) -> str:
    """Return a variable of a type or a literal."""
    if scope.rng.random() < _OPERAND_VARIABLE:
        name = scope.variable(kind, changed=False, other_than=_NONE)
        if name is not None:
            return name
    return literal(scope, kind)


def literal(scope: Scope, kind: str) -> str:
    """Return a literal of a type."""
    return _LITERALS[kind](scope)


def quoted(scope: Scope, text: str) -> str:
    """Return a string literal of a text without quotes, with the quotes of the author's style."""
    quote = '"' if scope.rng.random() < scope.style.double_quotes else "'"
    return f"{quote}{text}{quote}"


def string_literal(scope: Scope) -> str:
    """Return a string literal: a message, an identifier or a word."""
    rng = scope.rng
    kind = rng.random()
    if kind < 0.15:
        text = f"{word(rng, 'objects')}_{word(rng, 'int_names')}"
    elif kind < 0.45:
        text = word(rng, "text_words")
    else:
        text = phrase(rng, "text_words", 4)
        if rng.random() < 0.3:
            text += rng.choice((":", ":", "!", ".", "..."))
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return quoted(scope, text)


def f_string(scope: Scope) -> str:
    """Return an f-string of words and one or two variables."""
    rng = scope.rng
    quote = '"' if rng.random() < scope.style.double_quotes else "'"
    text = ""
    for _ in range(1 if rng.random() < 0.7 else 2):
        kinds = ("int", "str", "strs") if rng.random() < 0.5 else ("str", "int", "ints")
        names = (scope.variable(kind, changed=False, other_than=_NONE) for kind in kinds)
        name = next((name for name in names if name is not None), None)
        if name is None:
            return string_literal(scope)
        end = rng.choice((" ", " ", " ", ": ", "="))
        text += f"{phrase(rng, 'text_words', 3)}{end}{{{name}}}{rng.choice(('', ' ', ', '))}"
    text = text.rstrip() + rng.choice(("", "", "", "!", f" {word(rng, 'text_words')}"))
    return f"f{quote}{text}{quote}"


def call(scope: Scope, signature: Signature) -> str:
    """Return a call of a function with arguments of the right types."""
    arguments = ", ".join([operand(scope, kind) for kind in signature.parameters])
    return f"{signature.name}({arguments})"


def _print(scope: Scope) -> str:
    rng = scope.rng
    kinds = ("int", "str", "str", "strs", "ints", "table", "bool")
    draw = rng.random()
    names = [
        name
        for kind in rng.sample(kinds, 2)
        if (name := scope.variable(kind, changed=False, other_than=_NONE))
    ]
    if draw < 0.25 or not names:
        return f"print({string_literal(scope)})"
    if draw < 0.5:
        return f"print({f_string(scope)})"
    if draw < 0.75:
        return f"print({string_literal(scope)}, {names[0]})"
    return f"print({', '.join(dict.fromkeys(names))})"


def _path(scope: Scope, mode: str) -> str:
    """Return the name of a file, or a variable that holds one."""
    rng = scope.rng
    held = (f"{mode[0]}path", "path") if mode != "plain" else ("path",)
    for kind_of_path in held:
        path = scope.variable(kind_of_path, changed=False, other_than=_NONE)
        if path is not None and rng.random() < 0.5:
            return path
    return file_name(scope, mode)


def file_name(scope: Scope, mode: str) -> str:
    """Return the name of a file that is read or written, as a string literal."""
    rng = scope.rng
    name = word(rng, f"{mode}_files")
    kind = rng.random()
    if kind < 0.15:
        name = f"{name}_{word(rng, 'plain_files')}"
    elif kind < 0.3:
        name = f"{word(rng, 'plain_files')}_{name}"
    elif kind < 0.4:
        name = f"{word(rng, 'plain_files')}/{name}" if mode == "read" else name
    elif kind < 0.5:
        name = word(rng, "plain_files")
    return quoted(scope, f"{name}.{word(rng, 'endings')}")


def _variable(scope: Scope, labels: Labels, kind: str) -> str | None:
    return scope.variable(kind, changed=False, other_than=labels.values())


def _changed(scope: Scope, labels: Labels, kind: str) -> str | None:
    return scope.variable(kind, changed=True, other_than=labels.values())


def _new(scope: Scope, labels: Labels, kind: str) -> str:
    del labels
    name = variable_name(scope.rng, kind, scope.taken)
    scope.taken.add(name)
    scope.pending.append((kind, name))
    return name


def _loop_name(scope: Scope, labels: Labels, kind: str) -> str:
    del labels
    name = variable_name(scope.rng, "loop", scope.taken)
    scope.taken.add(name)
    scope.pending.append((kind, name))
    return name


def _each(scope: Scope, labels: Labels, kind: str) -> str:
    """Name a loop variable after the list of the line, `user` for `users`."""
    del labels
    plural = scope.used[-1] if scope.used else None
    name = None if plural is None else singular(plural)
    if name is None or name in scope.taken or scope.rng.random() < 0.15:
        name = variable_name(scope.rng, "short", scope.taken)
    scope.taken.add(name)
    scope.pending.append((kind, name))
    return name


def _retyped(scope: Scope, labels: Labels, kind: str) -> str:
    """Give the labelled variable another type from this line on."""
    name = labels["a"]
    for known_kind, names in scope.variables.items():
        if name in names:
            scope.hide(known_kind, name)
    scope.pending.append((kind, name))
    return name


def _bound(scope: Scope, labels: Labels, _: str) -> str:
    return variable_name(scope.rng, "short", scope.taken | set(labels.values()))


def _expression(scope: Scope, _: Labels, kind: str) -> str:
    return (expression if scope.expression_depth < _MOST_EXPRESSIONS else operand)(scope, kind)


def _operand(scope: Scope, _: Labels, kind: str) -> str:
    return operand(scope, kind)


def _call(scope: Scope, _: Labels, kind: str) -> str | None:
    fitting = [signature for signature in scope.functions if signature.returns == kind]
    return call(scope, scope.rng.choice(fitting)) if fitting else None


def _import(scope: Scope, _: Labels, module: str) -> str:
    scope.imports.add(module)
    return ""


def _in(scope: Scope, _: Labels, kind: str) -> str | None:
    fits = scope.loop is not None if kind == "loop" else scope.loop == "for"
    return "" if fits else None


def _mode(scope: Scope, mode: str) -> str:
    """Return the mode of `open`, now and then as a keyword argument."""
    value = quoted(scope, mode)
    return f"mode={value}" if scope.rng.random() < 0.15 else value


def _drawn(draw: Callable[[Scope], str]) -> Slot:
    return lambda scope, _labels, _argument: draw(scope)


def _digit(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return str(1 + int(9 * rng.random()))
    return str(10 + int(90 * rng.random())) if draw < 0.95 else str(100 * int(1 + 9 * rng.random()))


def _numbers(rng: Random, count: int) -> list[str]:
    return [_digit(rng) for _ in range(count)]


_LITERALS: dict[str, Callable[[Scope], str]] = {
    "int": lambda scope: _digit(scope.rng),
    "str": string_literal,
    "bool": lambda scope: scope.rng.choice(("True", "False")),
    "condition": lambda scope: f"{operand(scope, 'int')} > {_digit(scope.rng)}",
    "ints": lambda scope: f"[{', '.join(_numbers(scope.rng, 1 + scope.rng.randrange(4)))}]",
    "strs": lambda scope: f"[{', '.join([string_literal(scope) for _ in range(3)])}]",
    "table": lambda scope: f"{{{string_literal(scope)}: {_digit(scope.rng)}}}",
    "set": lambda scope: f"{{{string_literal(scope)}, {string_literal(scope)}}}",
    "grid": lambda scope: "[[{}, {}], [{}, {}]]".format(*_numbers(scope.rng, 4)),
    "opt": lambda _scope: "None",
    "code": lambda scope: f"{{{_digit(scope.rng)}: {string_literal(scope)}}}",
    "path": lambda scope: _path(scope, "plain"),
}

_SLOTS: dict[str, Slot] = {
    "v": _variable,
    "m": _changed,
    "n": _new,
    "i": _loop_name,
    "each": _each,
    "t": _retyped,
    "c": _bound,
    "e": _expression,
    "label": lambda _scope, labels, name: labels[name],
    "call": _call,
    "import": _import,
    "in": _in,
    "block": lambda _scope, _labels, _name: BLOCK,
    "statement": lambda _scope, _labels, _name: STATEMENT,
    **dict.fromkeys(_LITERALS, _operand),  # the argument of a slot is its own name
    "digit": _drawn(lambda scope: _digit(scope.rng)),
    "big": _drawn(lambda scope: str(10 * (1 + scope.rng.randrange(10)))),
    "text": _drawn(string_literal),
    "ftext": _drawn(f_string),
    "percent_text": _drawn(
        lambda scope: quoted(scope, f"{phrase(scope.rng, 'text_words', 3)}: %s")
    ),
    "brace_text": _drawn(lambda scope: quoted(scope, f"{phrase(scope.rng, 'text_words', 3)} {{}}")),
    "chars": _drawn(lambda scope: scope.rng.choice(_CHARS)),
    "letter": _drawn(lambda scope: quoted(scope, word(scope.rng, "letters"))),
    "newline": _drawn(lambda scope: quoted(scope, "\\n")),
    "number_text": _drawn(lambda scope: quoted(scope, _digit(scope.rng))),
    "empty": _drawn(lambda scope: quoted(scope, "")),
    "cmp": _drawn(lambda scope: scope.rng.choice(_COMPARISONS)),
    "op": _drawn(lambda scope: scope.rng.choice(_OPERATORS)),
    "log": _drawn(lambda scope: scope.rng.choice(_LOG_LEVELS)),
    "comment": _drawn(lambda scope: phrase(scope.rng, "comment_words", 5)),
    "print": _drawn(_print),
    "read_name": _drawn(lambda scope: file_name(scope, "read")),
    "write_name": _drawn(lambda scope: file_name(scope, "write")),
    "read_path": _drawn(lambda scope: _path(scope, "read")),
    "write_path": _drawn(lambda scope: _path(scope, "write")),
    "r_mode": _drawn(lambda scope: _mode(scope, "r")),
    "w_mode": _drawn(lambda scope: _mode(scope, "w")),
}

BLOCK = "\0"
"""Text of the slot `$block`, which statements.py replaces by statements."""
STATEMENT = "\1"
"""Text of the slot `$statement`: one statement."""
