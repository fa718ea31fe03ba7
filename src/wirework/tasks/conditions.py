"""Tasks on conditions and similar statements. Source: Gao et al. 2025, Table 1.

An answer contains the line break where code usually has one after it (`loops.py`).
"""

from random import Random

from wirework.tasks.snippets import (
    ANSWER_NAMES,
    NAMES,
    Context,
    body,
    code_before,
    evened,
    filled,
    line,
)
from wirework.tasks.task import Pair

_TESTS = ("", " == {digit}", " > {number}", " in {other}", ".{other}", " is None")
"""Rests of a condition after its variable, up to the colon."""

_CONDITIONS = (
    "{name}",
    "{name}_{other}",
    "{name}.{other}",
    "{name} == {digit}",
    "{name} > {other}",
    "{name} in {other}",
    "{name} is None",
)
"""Conditions that end in a letter or digit, so that no token spans the answer."""

_VALUES = ("{name}", "{digit}", "None")
_ASSIGNMENTS = ("{name} = ", "{name} = ", "{name}_{other} = ", "{function}_{name} = ")
"""Statements up to the value of a conditional expression."""

_TARGETS = ("{name}", "{name}", "{name}_{other}", "{name}.{other}")
"""Expressions that can be compared and assigned to."""


def else_elif(rng: Random) -> Pair:
    """Continue `else` with a colon and line break, `elif` with the variable of the `if`.

    The prompts differ in the keyword.
    """
    context, test = code_before(rng), rng.choice(_TESTS)
    name = rng.choice((*ANSWER_NAMES, "x", "y"))
    lines = [f"if {name}{filled(rng, test)}:", f"    {body(rng)}"]
    if rng.random() < 0.3:
        lines.append(f"    {line(rng)}")
    head = "".join(f"{context.indent}{text}\n" for text in lines) + context.indent
    head = context.text + head
    return Pair((f"{head}else", f"{head}elif"), (":\n", f" {name}"), f"if NAME{test}")


def if_ternary(rng: Random) -> Pair:
    """End an `if` statement with a colon and line break, a conditional expression with ` else`.

    The prompts differ in the text before the `if`.
    """
    context, form = code_before(rng), rng.choice(_CONDITIONS)
    condition = f"if {rng.choice(('', '', 'not '))}{filled(rng, form)}"
    head = f"{context.text}{context.indent}"
    value = filled(rng, rng.choice(_ASSIGNMENTS) + rng.choice(_VALUES))
    prompts = evened(rng, f"{head}{condition}", f"{head}{value} {condition}")
    return Pair(prompts, (":\n", " else"), f"if {form}")


def if_equals(rng: Random) -> Pair:
    """Continue a condition with ` ==`, a statement with ` =`.

    The prompts differ in the keyword before the variable.
    """
    context = code_before(rng)
    form, target = _target(rng, context)
    keyword = rng.choices(("if", "while", "assert"), (6, 1, 1))[0]
    head = f"{context.text}{context.indent}"
    prompts = evened(rng, f"{head}{keyword} {target}", f"{head}{target}")
    return Pair(prompts, (" ==", " ="), f"{keyword} {form}")


def var_if(rng: Random) -> Pair:
    """End a line after `True`: a condition with a colon, an assignment without.

    Both answers contain the line break, as in Table 1. The prompts differ in the keyword and the
    comparison.
    """
    context = code_before(rng)
    form, target = _target(rng, context)
    keyword = rng.choices(("if", "while"), (3, 1))[0]
    compare = rng.choice(("is", "==", "is not", "!="))
    head = f"{context.text}{context.indent}"
    prompts = evened(rng, f"{head}{keyword} {target} {compare} True", f"{head}{target} = True")
    return Pair(prompts, (":\n", "\n"), f"{keyword} {form} {compare}")


def _target(rng: Random, context: Context) -> tuple[str, str]:
    """Return the form of a target and the target; in a method often `self.NAME`."""
    if context.place == "method" and rng.random() < 0.5:
        return "self.{name}", f"self.{rng.choice(NAMES)}"
    form = rng.choice(_TARGETS)
    return form, filled(rng, form)
