"""Plurals and verb forms of the words that stories use.

Of an entry of several words the noun, its last word, takes the plural, and the verb, its first
word, the ending: `toy cars`, `rode a bike`, `riding a bike`.
"""

from collections.abc import Callable

_PLURALS = {
    "child": "children",
    "deer": "deer",
    "fish": "fish",
    "foot": "feet",
    "goldfish": "goldfish",
    "goose": "geese",
    "jellyfish": "jellyfish",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "moose": "moose",
    "mouse": "mice",
    "ox": "oxen",
    "policeman": "policemen",
    "reindeer": "reindeer",
    "salmon": "salmon",
    "scarf": "scarves",
    "sheep": "sheep",
    "shelf": "shelves",
    "shrimp": "shrimp",
    "snowman": "snowmen",
    "squid": "squid",
    "starfish": "starfish",
    "thief": "thieves",
    "tooth": "teeth",
    "trout": "trout",
    "wolf": "wolves",
    "bison": "bison",
    "dwarf": "dwarves",
    "elf": "elves",
    "bookcase": "bookcases",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mango": "mangoes",
    "volcano": "volcanoes",
    "buffalo": "buffaloes",
}

_PASTS = dict(
    pair.split("/")
    for pair in (
        "be/was become/became bend/bent blow/blew break/broke bring/brought build/built buy/bought "
        "catch/caught come/came creep/crept cut/cut dig/dug do/did draw/drew drink/drank "
        "drive/drove eat/ate fall/fell feed/fed find/found fly/flew forget/forgot get/got "
        "give/gave go/went hang/hung have/had hear/heard hide/hid hit/hit hold/held keep/kept "
        "know/knew leap/leaped leave/left lend/lent let/let light/lit lose/lost make/made "
        "meet/met put/put read/read ride/rode ring/rang run/ran say/said see/saw sell/sold "
        "send/sent set/set shake/shook show/showed sing/sang sit/sat sleep/slept slide/slid "
        "sneak/sneaked speak/spoke spell/spelled spend/spent spin/spun stand/stood steal/stole "
        "stick/stuck sweep/swept swim/swam swing/swung take/took teach/taught tear/tore "
        "tell/told think/thought throw/threw weep/wept wear/wore win/won write/wrote "
        "own/owned listen/listened open/opened visit/visited gather/gathered wander/wandered "
        "water/watered whisper/whispered answer/answered murmur/murmured mutter/muttered "
        "discover/discovered wonder/wondered offer/offered travel/traveled gallop/galloped "
        "sharpen/sharpened weed/weeded sew/sewed knit/knitted fix/fixed mix/mixed wax/waxed "
        "shiver/shivered clean/cleaned collect/collected polish/polished stammer/stammered "
        "enter/entered study/studied row/rowed follow/followed glow/glowed bow/bowed mow/mowed "
        "hum/hummed tiptoe/tiptoed"
    ).split()
)

_INGS = {"be": "being", "tiptoe": "tiptoeing", "tie": "tying", "lie": "lying", "see": "seeing"}

_VOWELS = "aeiou"


def plural(noun: str) -> str:
    """Return the plural of a noun, whose last word is the one that changes."""
    head, space, last = noun.rpartition(" ")
    if last in _PLURALS:
        return head + space + _PLURALS[last]
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if last.endswith("y") and last[-2:-1] not in _VOWELS:
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def past(verb: str) -> str:
    """Return the past tense of a verb, the first word."""

    def of(word: str) -> str:
        if word in _PASTS:
            return _PASTS[word]
        if word.endswith("e"):
            return f"{word}d"
        if word.endswith("y") and word[-2] not in _VOWELS:
            return f"{word[:-1]}ied"
        return f"{_doubled(word)}ed"

    return _first(verb, of)


def ing(verb: str) -> str:
    """Return the -ing form of a verb, the first word."""

    def of(word: str) -> str:
        if word in _INGS:
            return _INGS[word]
        if word.endswith("e"):
            return f"{word[:-1]}ing"
        return f"{_doubled(word)}ing"

    return _first(verb, of)


FORMS: dict[str, Callable[[str], str]] = {"s": plural, "past": past, "ing": ing}
"""Name of a form, as in `{thing.s}`, to what makes it."""

_STRESSED_EARLY = frozenset(
    "answer bow collect copper discover enter explain follow gallop gather glow hammer listen "
    "murmur mutter mow open offer own polish row sew sharpen stammer shiver travel visit wander "
    "water weed whisper wonder show throw draw know blow answer mumble".split()
)
"""Verbs that end in one consonant after one vowel and yet do not double it."""


def _first(verb: str, form: Callable[[str], str]) -> str:
    word, space, rest = verb.partition(" ")
    return form(word) + space + rest


def _doubled(word: str) -> str:
    """Double the last consonant after a single vowel: `swim`, `swimm(ing)`."""
    if word in _STRESSED_EARLY or len(word) < 3 or word[-1] in "wxy":
        return word
    short = word[-1] not in _VOWELS and word[-2] in _VOWELS and word[-3] not in _VOWELS
    if word[-3:-1] == "ui" and word[-4:-3] == "q":
        short = True
    return word + word[-1] if short else word
