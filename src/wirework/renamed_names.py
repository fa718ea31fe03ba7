"""Names of the Python API that were renamed: the first names still work, with a line of warning."""

from collections.abc import Mapping

from wirework.console import warn_once


def new_name(owner: str, name: str, renamed: Mapping[str, str]) -> str:
    """Return the name of today for a name that a `__getattr__` was asked for, and warn.

    Args:
        owner: module or class that the name is of, for messages.
        name: the name asked for.
        renamed: first names to names of today.

    Raises:
        AttributeError: the name was never one of the owner's.
    """
    if name not in renamed:
        raise AttributeError(f"{owner} has no attribute {name!r}")
    warn_once(f"{owner}.{name} is called {renamed[name]} now")
    return renamed[name]
