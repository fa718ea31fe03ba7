"""Renamed names of the Python API: the old names still work for one release, with a warning.

| what was renamed | how the old name is kept |
|---|---|
| a name of a module | `__getattr__ = old_names(__name__, Old="New")` in the module |
| an attribute or method | `@old_attributes(old="new")` on the class |
| an argument | `@old_arguments(old="new")` on the function or class |

Type checkers see the current names only. Settings and flags: `renamed_flags.py`.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from types import MappingProxyType, ModuleType
from typing import Any, TypeVar, cast

from wirework.console import warn_once

_Class = TypeVar("_Class", bound=type)
_Callable = TypeVar("_Callable", bound=Callable[..., Any])


def new_name(owner: object, name: str, renamed: Mapping[str, str]) -> str:
    """Return the current name for an old name requested from a `__getattr__`, and warn.

    Args:
        owner: the module or object that was asked for the name.
        name: the requested name.
        renamed: old names to current names.

    Raises:
        AttributeError: the owner never had this name.
    """
    if isinstance(owner, ModuleType):
        label, kind = owner.__name__, f"module {owner.__name__!r}"
    else:
        label, kind = type(owner).__name__, f"{type(owner).__name__!r} object"
    if name not in renamed:
        raise AttributeError(f"{kind} has no attribute {name!r}", name=name, obj=owner)
    warn_once(f"{label}.{name} is called {renamed[name]} now")
    return renamed[name]


def old_names(module: str, /, **renamed: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module whose functions, classes or constants were renamed.

    Args:
        module: `__name__` of the module.
        renamed: old names to current names.
    """

    def by_old_name(name: str) -> Any:
        owner = sys.modules[module]
        return getattr(owner, new_name(owner, name, renamed))

    return by_old_name


def old_attributes(
    removed: Mapping[str, Callable[[Any], Any]] = MappingProxyType({}), /, **renamed: str
) -> Callable[[_Class], _Class]:
    """Keep the old names of attributes and methods of a class, and of its subclasses.

    Args:
        removed: attributes that have no other name now, with a function from the instance to the
            value.
        renamed: old names to current names.

    Example:
        >>> @old_attributes(wiring="edges")
        ... class Net:
        ...     edges = 3
        >>> Net().wiring
        3
    """

    def decorated(kind: _Class) -> _Class:
        inherited = getattr(kind, "__getattr__", None)

        def by_old_name(self: Any, name: str) -> Any:
            if name in renamed:
                return getattr(self, new_name(self, name, renamed))
            if name in removed:
                warn_once(f"a {type(self).__name__} has no {name}: the next version refuses it")
                return removed[name](self)
            if inherited is not None:  # of a module: finds its parameters, so it must be fast
                return inherited(self, name)
            if isinstance(getattr(type(self), name, None), property | cached_property):
                # Python asks here if the property itself raised AttributeError: raise that one.
                return object.__getattribute__(self, name)
            return new_name(self, name, renamed)  # raises

        kind.__getattr__ = by_old_name  # type: ignore[attr-defined]
        return kind

    return decorated


def old_arguments(**renamed: str) -> Callable[[_Callable], _Callable]:
    """Keep the old names of keyword arguments of a function, or of the constructor of a class.

    Args:
        renamed: old names to current names.

    Example:
        >>> @old_arguments(rows="batch")
        ... def size(batch: list[int]) -> int:
        ...     return len(batch)
        >>> size(rows=[1, 2])
        2
    """

    def decorated(target: _Callable) -> _Callable:
        name = target.__qualname__
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

        @wraps(function)
        def with_current_names(*args: Any, **kwargs: Any) -> Any:
            for old, new in renamed.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{name}() got {new} also as {old}, its old name")
                    warn_once(f"the argument {old} of {name} is called {new} now")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        if isinstance(target, type):
            target.__init__ = with_current_names  # type: ignore[misc]
            return target
        return cast(_Callable, with_current_names)

    return decorated
