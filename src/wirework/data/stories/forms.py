"""Plurals and verb forms of the words that stories use.

In an entry of several words, the plural changes the last word (the noun) and a verb form the first
(the verb): `toy cars`, `rode a bike`, `riding a bike`. Irregular forms are in `forms.txt`.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from wirework.data.stories.notation import read_notation

FILE = Path(__file__).parent / "forms.txt"
_VOWELS = "aeiou"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    head, space, last = noun.rpartition(" ")
    return head + space + _exceptions("plurals").get(last, _with_s(last))


def past(verb: str) -> str:
    """Return the past tense of a verb."""
    word, space, rest = verb.partition(" ")
    return _exceptions("pasts").get(word, _with_ed(word)) + space + rest


def ing(verb: str) -> str:
    """Return the -ing form of a verb."""
    word, space, rest = verb.partition(" ")
    return _exceptions("ings").get(word, f"{_stem(word)}ing") + space + rest


FORMS: dict[str, Callable[[str], str]] = {"s": plural, "past": past, "ing": ing}
"""Name of a form, as in `{thing.s}`, to the function that makes it."""


@cache
def _exceptions(name: str) -> dict[str, str]:
    lists, _ = read_notation([FILE.read_text(encoding="utf-8")])
    pairs = (pair.partition(" ") for pair in lists[name])
    return {word: form for word, _, form in pairs}


def _with_s(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _with_ed(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return f"{verb[:-1]}ied"
    return f"{_stem(verb)}ed"


def _stem(verb: str) -> str:
    """Drop a last e; double the consonant after the one short vowel of a verb: `hop`, `hopp`."""
    if verb.endswith("e"):
        return verb[:-1]
    one_short_vowel = re.fullmatch(r"(?:[^aeiouy]|qu)*[aeiou][^aeiouwxy]", verb)
    return verb + verb[-1] if one_short_vowel else verb
