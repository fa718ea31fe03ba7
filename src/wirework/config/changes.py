"""Differences between two sets of settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Change(NamedTuple):
    """A setting with another value, or a group of settings that only one side has."""

    name: str
    """Dotted name of the setting."""
    before: Any
    after: Any

    def __str__(self) -> str:
        """Return the change as text: `optimizer.lr: 0.003 -> 0.5`."""
        return f"{self.name}: {_value_text(self.before)} -> {_value_text(self.after)}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[Change]:
    """Return all changes between nested settings, in order; a missing setting is None.

    Args:
        before, after: settings as `model_dump` returns them.
        prefix: prefix of the names.
    """
    changed: list[Change] = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            changed.append(Change(prefix + name, old, new))
    return changed


def _value_text(value: Any) -> str:
    return "set" if isinstance(value, Mapping) else str(value)
