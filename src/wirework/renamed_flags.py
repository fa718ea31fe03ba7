"""Renamed settings and flags: the old names still work for one release, with a warning."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wirework.console import warn_once
from wirework.errors import InputError

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


def with_new_flags(words: Iterable[str], has_setting: Callable[[str], bool]) -> list[str]:
    """Return the words of a command line, the command first, with the current flags.

    Args:
        words: the command line.
        has_setting: whether the command has a setting, by its dotted name (`prune.n_resamples`).
            A flag of another setting stays, so that the error names it as the user wrote it.
    """
    words = list(words)
    options = _options(words)
    return [_renamed(word, options, has_setting) for word in words]


def with_new_names(
    settings: Mapping[str, Any], command: str = "", source: str = ""
) -> dict[str, Any]:
    """Return the nested settings of a file under their current names.

    Args:
        settings: content of the file.
        command: the command that reads it, such as `study finders`.
        source: the file, for the message.

    Raises:
        InputError: a setting is given by its old and its current name.
    """
    names = SETTINGS | OPTIONS.get(command, {})
    try:
        renamed = current_names(settings, names)
    except InputError as error:
        raise InputError(f"{source}: {error}" if source else str(error)) from None
    for name in settings:
        if name in names:
            warn_once(f"the setting {name} is called {names[name]} now")
    return {
        name: with_new_names(value, source=source) if isinstance(value, Mapping) else value
        for name, value in renamed.items()
    }


def current_names(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Return values under their current names.

    Args:
        values: values by old or current name.
        renamed: old names to current names.

    Raises:
        InputError: a value is given by both names.
    """
    for old, now in renamed.items():
        if old in values and now in values:
            raise InputError(f"{now} is also given as {old}, its old name: keep one")
    return {renamed.get(name, name): value for name, value in values.items()}


def _options(words: list[str]) -> Mapping[str, str]:
    """Return the renamed options of the command that a command line begins with."""
    commands = (" ".join(words[:count]) for count in (1, 2))
    return next((OPTIONS[command] for command in commands if command in OPTIONS), {})


def _renamed(word: str, options: Mapping[str, str], has_setting: Callable[[str], bool]) -> str:
    match = _FLAG.fullmatch(word)
    if match is None:
        return word
    parents, negation, name, value = match.groups(default="")
    current = options.get(name) if not parents else None
    if current is None:
        current = SETTINGS.get(name)
        if current is None or not has_setting(f"{parents.replace('-', '_')}{current}"):
            return word
    flag = f"--{parents}{negation}{name}"
    now = f"--{parents}{negation}{current.replace('_', '-')}"
    warn_once(f"{flag} is called {now} now")
    return now + value
