"""The grammar of the programs: text with typed slots, compiled to functions that draw code.

`grammar.txt` has rules. Each rule lists its productions, `- text`; `-3 text` is drawn three times
as often, and indented lines continue a production. In a production, a slot `$name` is replaced:

- `$v_int`, `$m_int`: a variable of this type; `$m_` may be changed. Without one, the production is
  not used.
- `$n_int`: a new variable, visible from the next line in blocks of at least this indentation. The
  variables of a line that opens a block are visible in that block only, and are not changed there.
- `$each_str`: a new variable named after the list that the line iterates over.
- `$t_str:a`: the variable of label `a`, which has another type from here on.
- `$int`: a variable or a literal; `$e_int`: any expression of rule `int`.
- `$c`: a new name inside an expression.
- `$block`: statements; `$statement`: one.
- `$in_loop`: nothing, but the production is used in loops only.
- All other slots are functions of `slots.py`.

`$slot:a` keeps the text as label `a`, and `$a` repeats it. Labels are one letter.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from wirework.data.programs.scope import Scope

_SLOT = re.compile(r"\$([a-z_]+)(?::([a-z])(?![a-z]))?")
_PRODUCTION = re.compile(r"-(\d*) (.*)")
_INDENT = "    "

Labels = dict[str, str]
Slot = Callable[[Scope, Labels, str], str | None]
"""Returns the text of a slot, given the scope, the labels so far and the rest of the slot's name;
None: the production cannot be used here."""


class Draw(NamedTuple):
    """A slot of a line."""

    place: int
    """Position of the slot's text in `Line.texts`."""
    slot: Slot
    argument: str
    label: str | None


class Line(NamedTuple):
    """One line of a production."""

    depth: int
    """Indentation within the production, in blocks."""
    indent: str
    """The same as text."""
    texts: tuple[str, ...]
    """Texts of the line in order, with an empty one for each slot."""
    draws: tuple[Draw, ...]
    """Slots in the order in which they are drawn: a loop variable after the list that it iterates
    over."""
    opens: bool
    """Whether the line opens a block."""
    needs: str | None
    """Type of the variable that the first slot reads or changes; without one, the line has no text.
    None: the first slot is of another kind."""


Production = tuple[Line, ...]


class Rule(NamedTuple):
    """A rule with its productions, each as often as its weight says."""

    productions: tuple[Production, ...]


def read_rules(text: str, slots: Mapping[str, Slot]) -> dict[str, Rule]:
    """Compile the rules of a grammar.

    Args:
        text: in the notation above.
        slots: functions by the name of the slot, or by its part before the first `_`.

    Raises:
        ValueError: a line is not in the notation, or a slot is unknown.
    """
    rules: dict[str, list[list[str]]] = {}
    weights: dict[str, list[int]] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("# "):
            continue
        if line[0] == "-":
            weight, first = _matched(line)
            rules[name].append([first])
            weights[name].append(weight)
        elif line[0] == " ":
            rules[name][-1].append(line[2:])
        else:
            name = line.rstrip(":")
            rules[name], weights[name] = [], []
    return {
        name: Rule(
            tuple(
                production
                for lines, weight in zip(texts, weights[name], strict=True)
                for production in [tuple(_line(line, slots) for line in lines)] * weight
            )
        )
        for name, texts in rules.items()
    }


def load_rules(path: Path, slots: Mapping[str, Slot]) -> dict[str, Rule]:
    """Compile the rules of a file; see `read_rules`."""
    return read_rules(path.read_text(encoding="utf-8"), slots)


def _matched(line: str) -> tuple[int, str]:
    if (found := _PRODUCTION.fullmatch(line)) is None:
        raise ValueError(f"not a production: {line!r}")
    return int(found[1] or 1), found[2]


def _line(text: str, slots: Mapping[str, Slot]) -> Line:
    depth = (len(text) - len(text.lstrip())) // len(_INDENT)
    text = text.strip()
    texts: list[str] = []
    draws: list[Draw] = []
    end = 0
    for found in _SLOT.finditer(text):
        texts += [text[end : found.start()], ""]
        draws.append(Draw(len(texts) - 1, *_slot_of(found[1], slots), found[2]))
        end = found.end()
        if found[1].startswith(("import_", "in_")) and text[end : end + 1] == " ":
            end += 1  # the slot is replaced by nothing
    texts.append(text[end:])
    draws.sort(key=lambda draw: draw.slot is slots["each"])
    opens = text.endswith(":") and "lambda" not in text
    reads_variable = bool(draws) and draws[0].slot in (slots["v"], slots["m"])
    needs = draws[0].argument if reads_variable else None
    return Line(depth, _INDENT * depth, tuple(texts), tuple(draws), opens, needs)


def _slot_of(name: str, slots: Mapping[str, Slot]) -> tuple[Slot, str]:
    if len(name) == 1 and name != "c":
        return slots["label"], name
    if name in slots:
        return slots[name], name
    kind, _, argument = name.partition("_")
    if kind not in slots:
        raise ValueError(f"no slot ${name}")
    return slots[kind], argument


def draw_line(line: Line, scope: Scope, labels: Labels) -> str | None:
    """Return the text of a line, or None where a slot has none here."""
    if line.needs is not None and not scope.variables.get(line.needs):
        return None  # as its first slot would, which is the most frequent reason
    texts = list(line.texts)
    for place, slot, argument, label in line.draws:
        text = slot(scope, labels, argument)
        if text is None:
            return None
        if label is not None:
            labels[label] = text
        texts[place] = text
    return "".join(texts)
