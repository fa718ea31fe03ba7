"""Functions and classes of the programs."""

import re
from itertools import pairwise
from random import Random

from wirework.data.programs.scope import Scope, Signature
from wirework.data.programs.slots import call, expression, literal, string_literal
from wirework.data.programs.statements import block, drawn
from wirework.data.programs.words import class_name, function_name, phrase, variable_name, word

_INDENT = "    "
_PARAMETER_TYPES = (
    "int", "int", "str", "str", "str", "strs", "strs", "ints", "ints", "bool", "table", "path",
)  # fmt: skip
_RETURN_TYPES = ("int", "int", "str", "str", "bool", "bool", "ints", "strs", "table")
_ATTRIBUTE_TYPES = ("int", "int", "str", "str", "str", "strs", "ints", "table", "bool")
_ANNOTATIONS = {
    "int": "int", "str": "str", "bool": "bool", "ints": "list", "strs": "list", "table": "dict",
    "path": "str",
}  # fmt: skip
_EMPTY = {"int": "0", "str": '""', "bool": "False", "ints": "[]", "strs": "[]", "table": "{}"}
"""Values with which an attribute begins."""
_READS = re.compile(r"""open\(.*['"]r['"]\)""")
_DEFAULTS = 0.4
"""Share of functions with parameters that have default values."""
_NONE_DEFAULT = 0.6
"""Share of default values that are None."""


class _Parameter:
    """One parameter of a function."""

    def __init__(self, name: str, kind: str, default: str | None = None):
        self.name, self.kind, self.default = name, kind, default

    def text(self, annotated: bool) -> str:
        """Return the parameter as it is written in the definition."""
        if not annotated:
            return self.name if self.default is None else f"{self.name}={self.default}"
        text = f"{self.name}: {_ANNOTATIONS[self.kind]}"
        return text if self.default is None else f"{text} = {self.default}"


def function(scope: Scope) -> list[str]:
    """Return a function's lines, and make it known to later code."""
    name = function_name(scope.rng, scope.taken)
    scope.taken.add(name)
    parameters = _parameters(scope, 3)
    returns = scope.rng.choice((*_RETURN_TYPES, None))
    lines = _definition(scope.fresh(), name, [], parameters, returns)
    if not _may_fail(lines):
        scope.functions.append(_signature(name, parameters, returns))
    return lines


def class_definition(scope: Scope) -> tuple[list[str], list[str]]:
    """Return a class's lines, and lines that make an instance and call its methods."""
    rng = scope.rng
    name = class_name(rng, scope.taken)
    scope.taken.add(name)
    lines = [f"class {name}{rng.choice(('', '', '', '', '(object)'))}:"]
    if rng.random() < scope.style.docstrings:
        lines += [f'{_INDENT}"""A {phrase(rng, "comment_words", 4)}."""', ""]
    attributes, parameters, initial = _initialisation(scope)
    lines += [_INDENT + line for line in initial]
    instance = variable_name(rng, "opt", scope.taken)
    scope.taken.add(instance)
    arguments = [literal(scope, p.kind) for p in parameters if p.default is None]
    usage = [f"{instance} = {name}({', '.join(arguments)})"]
    methods: set[str] = set(attributes)
    for _ in range(1 + rng.randrange(3)):
        method = function_name(rng, methods)
        methods.add(method)
        method_lines, method_call = _method(scope, method, attributes, instance)
        lines += ["", *(_INDENT + line if line else line for line in method_lines)]
        if not _may_fail(method_lines):
            usage.append(method_call)
    shown = rng.choice(list(attributes))
    usage.append(f"print({instance}.{shown})")
    return lines, usage


def _initialisation(scope: Scope) -> tuple[dict[str, str], list[_Parameter], list[str]]:
    """Return the attributes (name to type), the parameters and the lines of an `__init__`."""
    rng = scope.rng
    parameters = _parameters(scope, 4, at_least=1, kinds=_ATTRIBUTE_TYPES)
    shown = ", ".join(["self", *(p.text(scope.style.annotated) for p in parameters)])
    lines = [f"def __init__({shown}):"]
    attributes: dict[str, str] = {}
    for parameter in parameters:
        value = parameter.name
        if parameter.default == "None":
            value = rng.choice((value, f"{value} or {_EMPTY[parameter.kind]}"))
        hidden = "_" if rng.random() < 0.1 else ""
        lines.append(f"{_INDENT}self.{hidden}{parameter.name} = {value}")
        if not (parameter.default == "None" and value == parameter.name):
            attributes[f"{hidden}{parameter.name}"] = parameter.kind
    for _ in range(rng.randrange(3)):
        kind = rng.choice(_ATTRIBUTE_TYPES)
        name = variable_name(rng, kind, {*attributes, *(p.name for p in parameters)})
        attributes[name] = kind
        lines.insert(rng.choice((1, len(lines))), f"{_INDENT}self.{name} = {_EMPTY[kind]}")
    if not attributes:
        attributes["count"] = "int"
        lines.append(f"{_INDENT}self.count = 0")
    return attributes, parameters, lines


def _method(
    scope: Scope, name: str, attributes: dict[str, str], instance: str
) -> tuple[list[str], str]:
    """Return the lines of a method and a line that calls it."""
    rng = scope.rng
    inner = scope.fresh()
    for attribute, kind in attributes.items():
        inner.declare(kind, f"self.{attribute}")
    is_property = rng.random() < 0.1
    parameters = [] if is_property else _parameters(scope, 2)
    returns = rng.choice(_RETURN_TYPES if is_property else (*_RETURN_TYPES, None, None))
    lines = _definition(inner, name, ["self"], parameters, returns)
    if is_property:
        return ["@property", *lines], f"print({instance}.{name})"
    signature = _signature(f"{instance}.{name}", parameters, returns)
    return lines, _used(scope, signature)


def usage(scope: Scope, signature: Signature) -> list[str]:
    """Return lines that call a function and use its result."""
    if signature.returns is None or scope.rng.random() < 0.4:
        return [_used(scope, signature)]
    name = variable_name(scope.rng, signature.returns, scope.taken)
    line = f"{name} = {call(scope, signature)}"
    scope.declare(signature.returns, name)
    return [line]


def _used(scope: Scope, signature: Signature) -> str:
    text = call(scope, signature)
    return text if signature.returns is None else f"print({text})"


def _definition(
    scope: Scope, name: str, first: list[str], parameters: list[_Parameter], returns: str | None
) -> list[str]:
    """Return the lines of a function or method; `scope` is that of its body."""
    rng, annotated = scope.rng, scope.style.annotated
    shown = ", ".join([*first, *(parameter.text(annotated) for parameter in parameters)])
    result = f" -> {_ANNOTATIONS[returns]}" if annotated and returns in _ANNOTATIONS else ""
    lines = [f"def {name}({shown}){result}:"]
    if rng.random() < scope.style.docstrings:
        lines.append(f'{_INDENT}"""{phrase(rng, "comment_words", 5).capitalize()}."""')
    for parameter in sorted(parameters, key=lambda parameter: parameter.default == "None"):
        if parameter.default == "None":
            lines.append(f"{_INDENT}if {parameter.name} is None:")
            lines.append(f"{_INDENT * 2}{parameter.name} = {_value(scope, parameter)}")
        scope.declare(parameter.kind, parameter.name)
    body = block(scope, 3) if returns is None or rng.random() < 0.6 else []
    if returns is not None:
        body += drawn(scope, f"return_{returns}")
    return lines + [_INDENT + line for line in body]


def _value(scope: Scope, parameter: _Parameter) -> str:
    """Return the value that replaces the default None."""
    if parameter.kind == "path":
        return literal(scope, "path")
    return expression(scope, parameter.kind)


def _parameters(
    scope: Scope, most: int, *, at_least: int = 0, kinds: tuple[str, ...] = _PARAMETER_TYPES
) -> list[_Parameter]:
    rng = scope.rng
    count = at_least + int((most + 1 - at_least) * rng.random())
    names: set[str] = set()
    parameters: list[_Parameter] = []
    with_default = int(count * rng.random()) if rng.random() < _DEFAULTS else count
    for number in range(count):
        kind = rng.choice(kinds)
        name = _parameter_name(rng, kind, names)
        names.add(name)
        default = _default(scope, kind) if number >= with_default else None
        parameters.append(_Parameter(name, kind, default))
    return parameters


def _parameter_name(rng: Random, kind: str, names: set[str]) -> str:
    if kind == "path":
        name = rng.choice(("path", "filename", "file_name", f"{word(rng, 'read_files')}_path"))
        return variable_name(rng, "str", names) if name in names else name
    return variable_name(rng, kind, names)


def _default(scope: Scope, kind: str) -> str:
    if scope.rng.random() < _NONE_DEFAULT or kind in ("ints", "strs", "table"):
        return "None"
    return string_literal(scope) if kind == "str" else literal(scope, kind)


def _signature(name: str, parameters: list[_Parameter], returns: str | None) -> Signature:
    needed = tuple(parameter.kind for parameter in parameters if parameter.default is None)
    return Signature(name, needed, returns)


def _may_fail(lines: list[str]) -> bool:
    """Return whether a function reads a file outside `try` and `if`, which a call may not find."""
    guards = ("try:", "if os.path")
    return any(
        _READS.search(line) and not before.strip().startswith(guards)
        for before, line in pairwise(lines)
    )
