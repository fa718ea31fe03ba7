"""Renamed names of the Python API: the old names still work, with a warning."""

from collections.abc import Mapping

from wirework.console import warn_once


def new_name(owner: str, name: str, renamed: Mapping[str, str]) -> str:
    """Return the current name for an old name requested from a `__getattr__`, and warn.

    Args:
        owner: module or class of the name, for messages.
        name: the requested name.
        renamed: old names to current names.

    Raises:
        AttributeError: the owner never had this name.
    """
    if name not in renamed:
        raise AttributeError(f"{owner} has no attribute {name!r}")
    warn_once(f"{owner}.{name} is called {renamed[name]} now")
    return renamed[name]
