"""Renamed flags and settings: the old names still work, with a warning."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from wirework.console import warn_once

RENAMED = {
    "also": "extra_rankings",
    "anyway": "allow_unreached",
    "both": "symmetric",
    "draws": "n_resamples",
    "whole": "full_validation",
}
"""Old names to current names."""

_FLAG = re.compile(rf"--((?:[\w-]+\.)*)((?:no-|empty-)?)({'|'.join(RENAMED)})(=.*)?", re.DOTALL)


def with_new_flags(words: Iterable[str]) -> list[str]:
    """Return the words of a command line with the current flags."""
    return [_renamed(word) for word in words]


def with_new_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested settings of a file under their current names."""
    renamed = {}
    for name, value in settings.items():
        now = RENAMED.get(name, name)
        if now != name:
            warn_once(f"the setting {name} is called {now} now")
        renamed[now] = with_new_names(value) if isinstance(value, Mapping) else value
    return renamed


def _renamed(word: str) -> str:
    if not (match := _FLAG.fullmatch(word)):
        return word
    parents, negation, name, value = match.groups(default="")
    flag = f"--{parents}{negation}{name}"
    now = f"--{parents}{negation}{RENAMED[name].replace('_', '-')}"
    warn_once(f"{flag} is called {now} now")
    return now + value
