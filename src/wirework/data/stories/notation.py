"""The notation of word lists and rules in the text files beside this one.

# a comment
colors = red, blue                 a list: entries separated by commas, on one or more lines
opening:                           a rule; each `-` is one way to say it
- One day {h} found a ball.
- Then {h.he} smiled.
  A further line continues the text.
"""

import re
from collections.abc import Iterable

_HEADER = re.compile(r"(\w+)( =|:)")


def read_notation(
    sources: Iterable[str],
) -> tuple[dict[str, tuple[str, ...]], dict[str, list[str]]]:
    """Return the lists and the rules of some texts, by name.

    Raises:
        ValueError: a name is defined twice.
    """
    lists: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    name = ""
    for line in (line for source in sources for line in source.splitlines()):
        if not line.strip() or line.startswith("#"):
            continue
        if header := _HEADER.match(line):
            name = header[1]
            if name in lists or name in rules:
                raise ValueError(f"{name} is defined twice")
            if header[2] == ":":
                rules[name] = []
            else:
                lists[name] = line[header.end() :]
        elif name in lists:
            lists[name] += line
        elif line.startswith("- "):
            rules[name].append(line[2:].strip())
        else:
            rules[name][-1] += f" {line.strip()}"
    return {name: _entries(text) for name, text in lists.items()}, rules


def _entries(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))
