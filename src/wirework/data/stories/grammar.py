"""A grammar of texts with slots: templates compiled to functions that draw one text each.

The files are in the notation of `notation.py`. In a template, `{slot}` is the text of a slot,
`[a|b]` one of several alternatives and `<rule>` a text drawn from a rule. `<slot:rule>` also stores
the drawn text in the slot; it differs from the texts of all slots. `{slot.form}` and `<rule.form>`
give a form of the word (`forms.FORMS`). `<@name>` calls a function that the caller passed. Words at
the beginning of a list are drawn more often.
"""

import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache

from wirework.data.stories.forms import FORMS
from wirework.data.stories.notation import read_notation

State = MutableMapping[str, str]
Draw = Callable[[], float]
"""Returns a random number in [0, 1)."""
Text = Callable[[State, Draw], str]
"""A compiled template: a function of state and random numbers that returns text."""
Action = Callable[[State, Draw], None]

_TOKEN = re.compile(r"[\[\]|]|\{([\w.]+)\}|<(@)?(?:(\w+):)?([\w.]+)>|[^\[\]|{<]+")
_SKEW = 1.6
"""Above 1: word i of n is drawn with a chance that falls with i, never below 1 / (1.6 n)."""
_TRIES = 20


class Grammar:
    """Compiled rules and word lists."""

    def __init__(self, sources: Iterable[str], actions: Mapping[str, Action] | None = None):
        """Read and compile every rule.

        Args:
            sources: texts in the notation; a name is defined once over all of them.
            actions: functions for `<@name>`, which change the state and return no text.

        Raises:
            ValueError: a rule is defined twice or missing, or a template is not well-formed.
        """
        self.words, self.templates = read_notation(sources)
        self._actions = actions or {}
        self._rules = {
            name: _one_of([self._compiled(option) for option in options])
            for name, options in self.templates.items()
        }

    def draw(self, rule: str, state: State, draw: Draw) -> str:
        """Return one text of a rule; texts that it stores in slots are added to `state`."""
        return self._rules[rule](state, draw)

    def _compiled(self, template: str) -> Text:
        tokens = list(_TOKEN.finditer(template))
        if "".join(token.group() for token in tokens) != template:
            raise ValueError(f"not a template: {template!r}")
        options, end = self._options(tokens, 0)
        if end != len(tokens) or len(options) != 1:
            raise ValueError(f"brackets do not match: {template!r}")
        return options[0]

    def _options(self, tokens: list[re.Match[str]], i: int) -> tuple[list[Text], int]:
        """Return the alternatives up to the closing bracket or the end, and that position."""
        options: list[list[Text]] = [[]]
        while i < len(tokens) and tokens[i].group() != "]":
            text = tokens[i].group()
            if text == "|":
                options.append([])
            elif text == "[":
                inner, i = self._options(tokens, i + 1)
                options[-1].append(_one_of(inner))
            else:
                options[-1].append(self._part(tokens[i]))
            i += 1
        return [_joined(parts) for parts in options], i

    def _part(self, token: re.Match[str]) -> Text:
        slot, at, kept, rule = token.groups()
        if slot is not None:
            return _slot(slot)
        if rule is None:
            return _literal(token.group())
        if at:
            return _acting(self._actions[rule])
        drawn = self._drawn(rule)
        return drawn if kept is None else _keeping(kept, drawn)

    def _drawn(self, rule: str) -> Text:
        name, _, form = rule.partition(".")
        if name in self.words:
            words = self.words[name]
            return _word(tuple(map(FORMS[form], words)) if form else words)
        if name not in self.templates:
            raise ValueError(f"no rule {name!r}")
        # By name, since a rule may be compiled after the rules that use it.
        return lambda state, draw: self._rules[name](state, draw)


def _joined(parts: list[Text]) -> Text:
    if len(parts) == 1:
        return parts[0]
    return lambda state, draw: "".join([part(state, draw) for part in parts])


def _one_of(options: list[Text]) -> Text:
    n = len(options)
    if n == 1:
        return options[0]
    return lambda state, draw: options[int(draw() * n)](state, draw)


def _literal(text: str) -> Text:
    return lambda _state, _draw: text


def _word(words: tuple[str, ...]) -> Text:
    n = len(words)
    return lambda _state, draw: words[int(n * draw() ** _SKEW)]


def _slot(slot: str) -> Text:
    name, _, form = slot.rpartition(".")
    if form in FORMS:
        make = lru_cache(maxsize=4096)(FORMS[form])
        return lambda state, _draw: make(state[name])
    return lambda state, _draw: state[slot]


def _keeping(slot: str, drawn: Text) -> Text:
    def keep(state: State, draw: Draw) -> str:
        text = drawn(state, draw)
        for _ in range(_TRIES):
            if text not in state.values():
                break
            text = drawn(state, draw)
        state[slot] = text
        return text

    return keep


def _acting(action: Action) -> Text:
    def act(state: State, draw: Draw) -> str:
        action(state, draw)
        return ""

    return act
