"""Built-in tasks by name: the twenty of Gao et al. 2025, Table 1, in its order, and `ioi`."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from wirework.tasks.brackets import bracket_brace, bracket_counting
from wirework.tasks.conditions import else_elif, if_equals, if_ternary, var_if
from wirework.tasks.definitions import class_init, final_kwarg, lambda_func
from wirework.tasks.file_modes import with_as, with_open
from wirework.tasks.ioi import ioi, single_tokens, with_new_names
from wirework.tasks.loops import enumerate_range, for_while, indent_for, while_return_true
from wirework.tasks.strings import fstring_brace, single_double_quote
from wirework.tasks.task import Pair
from wirework.tasks.variables import set_or_string, set_or_string_fixedvarname, var_swap

Generator = Callable[[Random], Pair]
"""Returns one pair, drawn with the given random generator."""

PYTHON_TASKS: Mapping[str, Generator] = MappingProxyType(
    {
        make.__name__: make
        for make in (
            single_double_quote,
            bracket_counting,
            set_or_string,
            set_or_string_fixedvarname,
            final_kwarg,
            class_init,
            with_as,
            bracket_brace,
            with_open,
            for_while,
            else_elif,
            fstring_brace,
            if_ternary,
            var_swap,
            indent_for,
            lambda_func,
            if_equals,
            enumerate_range,
            var_if,
            while_return_true,
        )
    }
)
"""Generators of the twenty tasks on Python source, by name."""

BUILT_IN_TASKS: Mapping[str, Generator] = MappingProxyType({**PYTHON_TASKS, "ioi": ioi})
"""Generators of all built-in tasks, by name: those on Python source and those on other text. The
tasks of a model include the latter only if they fit it (`evaluate.tasks_for`)."""

SINGLE_TOKENS: Mapping[str, Callable[[], tuple[str, ...]]] = MappingProxyType(
    {"ioi": single_tokens}
)
"""Functions that return the words of a task's prompts that must be one token each, by task."""

NEW_NAMES: Mapping[str, Callable[[Pair, Callable[[str], bool]], str]] = MappingProxyType(
    {"ioi": with_new_names}
)
"""Functions that return the clean prompt of a pair with new names that a predicate accepts, by
task."""
