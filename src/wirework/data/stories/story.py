"""An endless stream of simple children's stories, each with a cast, a plot and events.

Each story is drawn from the grammar of `words.txt`, `story_segments.txt` and `plots.txt`. Its cast,
names, pronouns, objects and places stay consistent. The stories are similar to TinyStories (Eldan
and Li 2023) but contain none of its text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from wirework.data.stories.grammar import Draw, Grammar, State

Gender = Literal["he", "she"]

DEFAULT_BYTES = 60_000_000
"""Bytes of the corpus `stories` without `max_bytes`: 14 million tokens of a vocabulary of 2,048."""

_FOLDER = Path(__file__).parent
_PRONOUNS: dict[Gender, dict[str, str]] = {
    "he": {"he": "he", "him": "him", "his": "his", "self": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "self": "herself"},
}
_CHILD: dict[Gender, str] = {"he": "boy", "she": "girl"}
_NAMES: dict[Gender, str] = {"he": "boy_names", "she": "girl_names"}
_ELDERS: dict[Gender, tuple[str, ...]] = {
    "he": ("dad", "dad", "grandpa", "uncle", "daddy"),
    "she": ("mom", "mom", "grandma", "aunt", "mommy"),
}
_FAR: dict[Gender, tuple[str, ...]] = {"he": ("grandpa", "uncle"), "she": ("grandma", "aunt")}
_OLD_NAMES: dict[Gender, str] = {"he": "old_men", "she": "old_women"}
_NAME_SKEW = 2.0
"""Skew of the draws of names: those at the beginning of a list are more frequent, as in books."""
_ANIMAL_SHARE = 0.2
"""Share of stories whose children are animals with a name."""

_ARTICLE = re.compile(r"\b([Aa])(?= (?!uni|uku|use|one\b)(?:[aeiouAEIOU]|hon[eo]|hour))")
_NEW = r"(?:s?he|(?:his|her) \w+) (?!said|asked|thought|shouted|cried|called)"
"""Text after a quote that ends in ! or ?, if it is a new sentence and not `she said`."""
_FIRST = re.compile(
    rf"(?:^|(?<=[.!?] )|(?<=\n)|(?<=[ \n]\")|(?<=\.\" )|(?<=[!?]\" )(?={_NEW}))[a-z]"
)
_PARAGRAPH = re.compile(r"[ ¶]*¶[ ¶]*")
_SPACE = re.compile(r" {2,}")


def stories(seed: int = 0) -> Iterator[str]:
    """Yield an endless stream of stories, a pure function of the seed."""
    rng = Random(f"stories {seed}")
    while True:
        yield tell(rng)


def bounded(seed: int, n_bytes: int) -> Iterator[str]:
    """Yield the stories of a seed until they have at least `n_bytes` (UTF-8)."""
    for text in stories(seed):
        yield text
        n_bytes -= len(text.encode())
        if n_bytes <= 0:
            return


def tell(rng: Random, genders: Sequence[Gender] = ("he", "she")) -> str:
    """Return one story.

    Args:
        rng: source of all random draws.
        genders: genders of the characters, except animals (`it`) and groups.
    """
    state = cast(rng, genders)
    return _written(grammar().draw("story", state, rng.random))


@cache
def grammar() -> Grammar:
    """Return the grammar of the stories, compiled once."""
    return Grammar((path.read_text(encoding="utf-8") for path in texts()), {"pair": _pair})


class IoiWords(NamedTuple):
    """Words for prompts of `ioi`: names, gifts and places that occur in the stories."""

    names: tuple[str, ...]
    gifts: tuple[str, ...]
    places: tuple[str, ...]


@cache
def ioi_words() -> IoiWords:
    """Return names of children, gifts and places; each is also a single token of GPT-2."""
    words = grammar().words
    names = (*words["girl_names"], *words["boy_names"])
    return IoiWords(tuple(sorted(names)), words["gifts"], words["gift_places"])


def texts() -> list[Path]:
    """Return the files that the grammar is read from."""
    return [_FOLDER / name for name in ("words.txt", "story_segments.txt", "plots.txt")]


def source_files() -> list[Path]:
    """Return every file that the text of a story depends on, sorted."""
    return sorted([*_FOLDER.glob("*.txt"), *_FOLDER.glob("*.py")])


def cast(rng: Random, genders: Sequence[Gender]) -> dict[str, str]:
    """Return the slots of all characters that may occur."""
    words = grammar().words
    state: dict[str, str] = {}
    animals = rng.random() < _ANIMAL_SHARE
    for role in "hft":
        gender = rng.choice(genders)
        names = words["animal_names" if animals else _NAMES[gender]]
        free = [name for name in names if name not in state.values()]
        name = free[int(len(free) * rng.random() ** _NAME_SKEW)]
        kind = rng.choice(words["cast_animals"]) if animals else _CHILD[gender]
        state |= _role(role, name, gender) | {f"{role}.kind": kind}
    gender = rng.choice(genders)
    elder = rng.choice(_ELDERS[gender])
    state |= _role("e", f"{state['h.his']} {elder}", gender) | {"e.v": elder.title()}
    gender = rng.choice(genders)
    state |= {"r": rng.choice(_FAR[gender]), "r.name": rng.choice(words[_OLD_NAMES[gender]])}
    state |= {"pet": rng.choice(words["pets"]), "pet.name": rng.choice(words["pet_names"])}
    return state | _role("k", "", rng.choice(genders))


def _role(role: str, name: str, gender: Gender) -> dict[str, str]:
    return {role: name} | {f"{role}.{key}": word for key, word in _PRONOUNS[gender].items()}


def _pair(state: State, draw: Draw) -> None:
    """Assign the two children to slots x and y in random order."""
    roles = ["h", "f"] if draw() < 0.5 else ["f", "h"]
    for slot, role in zip("xy", roles, strict=True):
        for key in ("", ".he", ".him", ".his"):
            state[slot + key] = state[role + key]


def _written(text: str) -> str:
    """Set articles, capital letters and spaces of a drawn text."""
    text = _SPACE.sub(" ", _PARAGRAPH.sub("\n\n", text)).strip()
    return _FIRST.sub(lambda first: first[0].upper(), _ARTICLE.sub(r"\1n", text))
