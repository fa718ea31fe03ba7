"""The built-in tasks by name: the twenty of Gao et al. 2025, Table 1, in its order, and others."""

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from wirework.tasks.brackets import bracket_brace, bracket_counting
from wirework.tasks.conditions import else_elif, if_equals, if_ternary, var_if
from wirework.tasks.definitions import class_init, final_kwarg, lambda_func
from wirework.tasks.file_modes import with_as, with_open
from wirework.tasks.ioi import ioi, single_tokens
from wirework.tasks.loops import enumerate_range, for_while, indent_for, while_return_true
from wirework.tasks.strings import fstring_brace, single_double_quote
from wirework.tasks.task import Pair
from wirework.tasks.variables import set_or_string, set_or_string_fixedvarname, var_swap

Generator = Callable[[Random], Pair]
"""Makes one pair from random draws."""

BUILT_IN: Mapping[str, Generator] = MappingProxyType(
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
"""Name to generator of one pair: the twenty on Python source."""

KNOWN: Mapping[str, Generator] = MappingProxyType({**BUILT_IN, "ioi": ioi})
"""All built-in tasks: the twenty on Python and those on other text. "All tasks" of a model includes
the latter only if they fit it (`evaluate.tasks_for`)."""

SINGLE_TOKENS: Mapping[str, Callable[[], tuple[str, ...]]] = MappingProxyType(
    {"ioi": single_tokens}
)
"""Words in the prompts of a task that must be one token each."""
