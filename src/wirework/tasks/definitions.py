"""Tasks on parameters, attributes and function definitions. Source: Gao et al. 2025, Table 1.

An answer contains the line break where code usually has one after it (`loops.py`).
"""

from random import Random

from wirework.tasks.snippets import ANSWER_NAMES, FUNCTIONS, NAMES, code_before, names, top_line
from wirework.tasks.task import Pair


def final_kwarg(rng: Random) -> Pair:
    """Give the last parameter a default `=None` if earlier ones have defaults, else end with `):`.

    The prompts differ in the defaults of earlier parameters. A parameter without a default after
    one with a default is a syntax error. The answer `):` contains its line break, which almost
    always follows it in code.
    """
    before, indent = _definition_place(rng)
    *earlier, last = rng.sample(NAMES, rng.randint(2, 4))
    fixed = earlier[: rng.randint(0, len(earlier) - 1)]
    if indent:
        fixed = ["self", *fixed[:1]]
    free = [name for name in earlier if name not in fixed]
    head = f"{before}{indent}def {_function_name(rng)}("
    defaults = rng.choices(("None", "0", "False", "1"), (8, 1, 1, 1), k=len(free))
    keywords = [f"{name}={value}" for name, value in zip(free, defaults, strict=True)]
    prompts = [f"{head}{', '.join([*fixed, *parameters, last])}" for parameters in (keywords, free)]
    return Pair(
        (prompts[0], prompts[1]),
        ("=None", "):\n"),
    )


def class_init(rng: Random) -> Pair:
    """Repeat the attribute's name after its `=` in an `__init__`.

    The prompts differ in the attribute; both names are parameters in both prompts.
    """
    top_lines = "".join(f"{top_line(rng)}\n" for _ in range(rng.randint(0, 1)))
    first, second = rng.sample(ANSWER_NAMES, 2)
    others = [name for name in names(rng, 0, 2) if name not in (first, second)]
    parameters = rng.sample([first, second, *others], 2 + len(others))
    head = (
        f"{top_lines}class {_class_name(rng)}:\n    def __init__(self, {', '.join(parameters)}):\n"
    )
    assignments = [f"self.{name} = {name}" for name in others]
    if rng.random() < 0.3:
        assignments.insert(
            0, rng.choice(("super().__init__()", "self.ready = False", "self.count = 0"))
        )
    lines = "".join(f"        {line}\n" for line in assignments)
    start = f"{head}{lines}        self."
    return Pair((f"{start}{first} =", f"{start}{second} ="), (f" {first}", f" {second}"))


def lambda_func(rng: Random) -> Pair:
    """Continue with `:` after the argument of a lambda, with `(` after the name of a function.

    The prompts end in the same name.
    """
    before, indent = code_before(rng)
    name, other = rng.sample(NAMES, 2)
    return Pair(
        (f"{before}{indent}{_lambda_head(rng, other)}lambda {name}", f"{before}{indent}def {name}"),
        (":", "("),
    )


def _definition_place(rng: Random) -> tuple[str, str]:
    """Return lines before a definition, and its indentation: none, or that of a class body."""
    top_lines = "".join(f"{top_line(rng)}\n" for _ in range(rng.randint(0, 2)))
    if rng.random() < 0.5:
        return top_lines, ""
    head = f"{top_lines}class {_class_name(rng)}:\n"
    if rng.random() < 0.4:
        head += f"    {rng.choice(NAMES)} = {rng.randint(0, 99)}\n"
    return head, "    "


def _function_name(rng: Random) -> str:
    function = rng.choice(FUNCTIONS)
    return rng.choice((function, f"{function}_{rng.choice(NAMES)}", f"_{function}"))


def _class_name(rng: Random) -> str:
    first, second = rng.sample(NAMES, 2)
    return rng.choice((first.title(), first.title() + second.title(), f"{first.title()}(object)"))


def _lambda_head(rng: Random, name: str) -> str:
    function = rng.choice(FUNCTIONS)
    return rng.choice(
        (
            f"{name} = ",
            f"{function} = ",
            f"{name}.{function} = ",
            f"{name}.sort(key=",
            f"{name} = sorted({name}, key=",
            f"{name} = max({name}, key=",
            f"{name} = map(",
            f"{name} = filter(",
            f"{function}_{name}({name}, ",
            f"{function}_{name} = ",
        )
    )
