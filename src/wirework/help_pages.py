"""Help text of a command: its basic settings, or all of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cyclopts.help import DefaultFormatter, InlineText
from rich.text import Text

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

    from wirework.config import Config

_ADVANCED = ("debug", "no_lock")
"""Flags of all commands that the short help text omits."""


class CommandHelp(DefaultFormatter):
    """Formatter of a command's help text.

    Args:
        settings: the command's settings class, whose `basic` names the settings to show; None for a
            command without settings. Its other arguments are always shown.
        full: show the other settings too.
    """

    def __init__(self, settings: "type[Config] | None", *, full: bool) -> None:
        super().__init__()
        self._full = full
        self._hidden = set() if full else set(flags(_ADVANCED))
        if not full and settings is not None:
            basic = settings.setting_names(basic=True)
            self._hidden |= set(flags(settings.setting_names())) - set(flags(basic))

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print a panel of the help text without the flags that are hidden."""
        shown = [
            _tidied(entry) if self._full else _tidied(entry).copy(negative_names=())
            for entry in panel.entries
            if self._hidden.isdisjoint(entry.positive_names)
        ]
        super().__call__(console, options, panel.copy(entries=shown))


def flags(names: Iterable[str]) -> list[str]:
    """Return the flags of settings, by their dotted names: `model.d_model` is `--model.d-model`."""
    return [f"--{name.replace('_', '-')}" for name in names]


def _tidied(entry: "HelpEntry") -> "HelpEntry":
    """Return an entry without the line breaks of its docstring and without a default of `False`."""
    description = getattr(entry.description, "primary_renderable", None)
    if isinstance(description, Text):
        entry = entry.copy(description=InlineText(Text(" ".join(description.plain.split()))))
    return entry.copy(default=None) if entry.default in ("False", "()") else entry
