"""Tasks on parameters, attributes and function definitions. Source: Gao et al. 2025, Table 1.

An answer contains the line break where code usually has one after it (`loops.py`).
"""

from random import Random

from wirework.tasks.snippets import (
    ANSWER_NAMES,
    NAMES,
    code_before,
    evened,
    filled,
    names,
    opening,
)
from wirework.tasks.task import Pair

_FUNCTION_NAMES = ("{function}", "{function}_{name}", "_{function}", "{function}_all", "on_{name}")
_ATTRIBUTES = (
    "self.{}", "self.{}", "self.{}", "self._{}", "self.my_{}", "self.new_{}", "self.config.{}",
)  # fmt: skip
"""Attributes that are named after their value."""
_FIRST_LINES = (
    "super().__init__()",
    "self.{other} = {digit}",
    "self.{name} = None",
    "{name} = {function}({other})",
    "self.{function}({name})",
    "self.{name} = {function}()",
)
"""Lines that an `__init__` may have before its attributes."""

_LAMBDAS = (
    "{name} = ",
    "{function} = ",
    "{name}.{function} = ",
    "{name}.sort(key=",
    "{function}(key=",
    "{function}({name}, ",
    "{function}_{name} = ",
    "print(",
    "map(",
    "filter(",
)
"""Statements up to a lambda."""


def final_kwarg(rng: Random) -> Pair:
    """Give the last parameter a default `=None` if earlier ones have defaults, else end with `):`.

    The prompts differ in the defaults of earlier parameters. A parameter without a default after
    one with a default is a syntax error. The answer `):` contains its line break, which almost
    always follows it in code.
    """
    before, indent = _definition_place(rng)
    form = rng.choice(_FUNCTION_NAMES)
    *earlier, last = rng.sample(NAMES, rng.randint(2, 4))
    fixed = earlier[: rng.randint(0, len(earlier) - 1)]
    if indent:
        fixed = ["self", *fixed[:1]]
    free = [name for name in earlier if name not in fixed]
    head = f"{before}{indent}def {filled(rng, form)}("
    defaults = rng.choices(("None", "0", "False", "1"), (8, 1, 1, 1), k=len(free))
    keywords = [f"{name}={value}" for name, value in zip(free, defaults, strict=True)]
    prompts = [f"{head}{', '.join([*fixed, *parameters, last])}" for parameters in (keywords, free)]
    template = f"def {form}(self" if indent else f"def {form}("
    return Pair(evened(rng, prompts[0], prompts[1]), ("=None", "):\n"), template)


def class_init(rng: Random) -> Pair:
    """Repeat the attribute's name after its `=` in an `__init__`.

    The prompts differ in the attribute; both names are parameters in both prompts.
    """
    form = rng.choice(_ATTRIBUTES)
    first, second = rng.sample(ANSWER_NAMES, 2)
    others = [name for name in names(rng, 0, 1) if name not in (first, second)]
    parameters = rng.sample([first, second, *others], 2 + len(others))
    lines = [*opening(rng), f"class {_class_name(rng)}:"]
    if rng.random() < 0.3:
        lines.append(f"    {filled(rng, '{name} = {number}')}")
    indent = "    "
    if rng.random() < 0.15:
        lines.insert(2, f"if {filled(rng, '{name}')}:")
        lines[3:] = [f"    {text}" for text in lines[3:]]
        indent = " " * 8
    lines.append(f"{indent}def __init__(self, {', '.join(parameters)}):")
    if rng.random() < 0.4:
        lines.append(f"{indent}    {filled(rng, rng.choice(_FIRST_LINES))}")
    lines += [f"{indent}    {form.format(name)} = {name}" for name in others]
    head = "".join(f"{text}\n" for text in lines) + f"{indent}    "
    prompts = (f"{head}{form.format(name)} =" for name in (first, second))
    return Pair((next(prompts), next(prompts)), (f" {first}", f" {second}"), form)


def lambda_func(rng: Random) -> Pair:
    """Continue with `:` after the argument of a lambda, with `(` after the name of a function.

    The prompts end in the same name.
    """
    context, form, name = code_before(rng), rng.choice(_LAMBDAS), rng.choice(NAMES)
    head = f"{context.text}{context.indent}"
    function = rng.choice(("def", "async def"))  # nearly as long as the start of a lambda
    prompts = evened(rng, f"{head}{filled(rng, form)}lambda {name}", f"{head}{function} {name}")
    return Pair(prompts, (":", "("), form)


def _definition_place(rng: Random) -> tuple[str, str]:
    """Return lines before a definition, and its indentation: none, or that of a class body."""
    top_lines = "".join(f"{text}\n" for text in opening(rng))
    if rng.random() < 0.5:
        return top_lines, ""
    head = f"{top_lines}class {_class_name(rng)}:\n"
    if rng.random() < 0.4:
        head += f"    {filled(rng, '{name} = {number}')}\n"
    return head, "    "


def _class_name(rng: Random) -> str:
    first, second = rng.sample(NAMES, 2)
    return rng.choice((first.title(), first.title() + second.title(), f"{first.title()}(object)"))
