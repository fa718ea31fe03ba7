"""Tasks on conditions and similar statements. Source: Gao et al. 2025, Table 1.

An answer contains the line break where code usually has one after it (`loops.py`).
"""

from random import Random

from wirework.tasks.snippets import (
    ANSWER_NAMES,
    FUNCTIONS,
    NAMES,
    body,
    code_before,
    line,
)
from wirework.tasks.task import Pair


def else_elif(rng: Random) -> Pair:
    """Continue `else` with a colon and line break, `elif` with the variable of the `if`.

    The prompts differ in the keyword.
    """
    before, indent = code_before(rng)
    name = rng.choice((*ANSWER_NAMES, "x", "y"))
    lines = [f"if {name}{_test(rng)}:", f"    {body(rng)}"]
    if rng.random() < 0.3:
        lines.append(f"    {line(rng)}")
    head = before + "".join(f"{indent}{text}\n" for text in lines) + indent
    return Pair((f"{head}else", f"{head}elif"), (":\n", f" {name}"))


def if_ternary(rng: Random) -> Pair:
    """End an `if` statement with a colon and line break, a conditional expression with ` else`.

    The prompts differ in the text before the `if`.
    """
    before, indent = code_before(rng)
    head, condition = f"{before}{indent}", f"if {_condition(rng)}"
    return Pair((f"{head}{condition}", f"{head}{_value_head(rng)} {condition}"), (":\n", " else"))


def if_equals(rng: Random) -> Pair:
    """Continue a condition with ` ==`, a statement with ` =`.

    The prompts differ in the keyword before the variable.
    """
    before, indent = code_before(rng)
    head, target = f"{before}{indent}", _target(rng, before)
    keyword = rng.choices(("if", "while", "assert"), (6, 1, 1))[0]
    return Pair((f"{head}{keyword} {target}", f"{head}{target}"), (" ==", " ="))


def var_if(rng: Random) -> Pair:
    """End a line after `True`: a condition with a colon, an assignment without.

    Both answers contain the line break, as in Table 1. The prompts differ in the keyword and the
    comparison.
    """
    before, indent = code_before(rng)
    head, target = f"{before}{indent}", _target(rng, before)
    keyword = rng.choices(("if", "while"), (3, 1))[0]
    compare = rng.choice(("is", "==", "is not", "!="))
    return Pair(
        (f"{head}{keyword} {target} {compare} True", f"{head}{target} = True"), (":\n", "\n")
    )


def _test(rng: Random) -> str:
    """Return the rest of a condition after its variable, up to the colon."""
    name = rng.choice(NAMES)
    return rng.choice(
        (
            "",
            f" == {rng.randint(0, 9)}",
            f" > {rng.randint(0, 99)}",
            f" in {name}",
            f".{name}",
            " is None",
        )
    )


def _condition(rng: Random) -> str:
    """Return a condition that ends in a letter or digit, so that no token spans the answer."""
    name, other = rng.sample(NAMES, 2)
    return rng.choice(("", "", "not ")) + rng.choice(
        (
            name,
            f"{name}_{other}",
            f"{name}.{other}",
            f"{name} == {rng.randint(0, 9)}",
            f"{name} > {other}",
            f"{name} in {other}",
            f"{name} is None",
        )
    )


def _value_head(rng: Random) -> str:
    """Return the start of a statement, up to the `if` of a conditional expression."""
    name, other = rng.sample(NAMES, 2)
    value = rng.choice((rng.choice(NAMES), str(rng.randint(0, 9)), f"{name}.{other}", "None"))
    return rng.choice(
        (
            f"{name} = {value}",
            f"{name} = {value}",
            f"{name}.{other} = {value}",
            f"{rng.choice(FUNCTIONS)}_{name} = {value}",
        )
    )


def _target(rng: Random, before: str) -> str:
    """Return an expression that can be compared and assigned to; in a method often `self.NAME`."""
    name, other = rng.sample(NAMES, 2)
    if "(self" in before and rng.random() < 0.5:
        return f"self.{name}"
    return rng.choice((name, name, f"{name}_{other}", f"{name}.{other}"))
