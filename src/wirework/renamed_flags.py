"""Renamed settings and flags: the old names still work for one release, with a warning."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from wirework.console import warn_once

SETTINGS = {
    "also": "extra_rankings",
    "anyway": "allow_unreached",
    "both": "symmetric",
    "draws": "n_resamples",
    "which": "instruments",
}
"""Old names of settings to current names. Files that wirework writes keep the old names."""

OPTIONS = {
    "prune": {"whole": "full_validation"},
    "study finders": {"which": "finders"},
}
"""By command: old names of its options that are no settings. They take precedence."""

_FLAG = re.compile(r"--((?:[\w-]+\.)*)((?:no-|empty-)?)(\w+)(=.*)?", re.DOTALL)


def with_new_flags(words: Iterable[str]) -> list[str]:
    """Return the words of a command line, the command first, with the current flags."""
    words = list(words)
    options = _options(words)
    return [_renamed(word, options) for word in words]


def with_new_names(settings: Mapping[str, Any], command: str = "") -> dict[str, Any]:
    """Return the nested settings of a file under their current names.

    Args:
        settings: content of the file.
        command: the command that reads it, such as `study finders`.
    """
    names, renamed = SETTINGS | OPTIONS.get(command, {}), {}
    for name, value in settings.items():
        now = names.get(name, name)
        if now != name:
            warn_once(f"the setting {name} is called {now} now")
        renamed[now] = with_new_names(value) if isinstance(value, Mapping) else value
    return renamed


def _options(words: list[str]) -> Mapping[str, str]:
    """Return the renamed options of the command that a command line begins with."""
    commands = (" ".join(words[:count]) for count in (1, 2))
    return next((OPTIONS[command] for command in commands if command in OPTIONS), {})


def _renamed(word: str, options: Mapping[str, str]) -> str:
    match = _FLAG.fullmatch(word)
    if match is None:
        return word
    parents, negation, name, value = match.groups(default="")
    current = options.get(name) if not parents else None
    current = current or SETTINGS.get(name)
    if current is None:
        return word
    flag = f"--{parents}{negation}{name}"
    now = f"--{parents}{negation}{current.replace('_', '-')}"
    warn_once(f"{flag} is called {now} now")
    return now + value
