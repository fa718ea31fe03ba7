"""Simple children's stories without end: a cast, a plot and what happens on the way.

Each story is drawn from the grammar of `words.txt`, `story_segments.txt` and `plots.txt`; who takes
part, a name, a pronoun, a lost thing and where it lay hold through the whole of it. In the spirit
of TinyStories (Eldan and Li 2023), and none of its text.
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
"""Text of the corpus `stories` where no `max_bytes` is set: about 14 million tokens of 2,048."""

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
"""Names at the beginning of their list are drawn more often, as some are in books."""
_ANIMAL_SHARE = 0.2
"""Share of stories whose children are animals with a name."""

_ARTICLE = re.compile(r"\b([Aa])(?= (?!uni|uku|use|one\b)(?:[aeiouAEIOU]|hon[eo]|hour))")
_NEW = r"(?:s?he|(?:his|her) \w+) (?!said|asked|thought|shouted|cried|called)"
"""What goes on after a quote that ends in ! or ?, where it is not who said it."""
_FIRST = re.compile(
    rf"(?:^|(?<=[.!?] )|(?<=\n)|(?<=[ \n]\")|(?<=\.\" )|(?<=[!?]\" )(?={_NEW}))[a-z]"
)
_PARAGRAPH = re.compile(r"[ ¶]*¶[ ¶]*")
_SPACE = re.compile(r" {2,}")


def stories(seed: int = 0) -> Iterator[str]:
    """Yield stories without end, a pure function of the seed."""
    rng = Random(f"stories {seed}")
    while True:
        yield tell(rng)


def bounded(seed: int, n_bytes: int) -> Iterator[str]:
    """Yield the stories of a seed until they have `n_bytes` (UTF-8) or a little more."""
    for text in stories(seed):
        yield text
        n_bytes -= len(text.encode())
        if n_bytes <= 0:
            return


def tell(rng: Random, genders: Sequence[Gender] = ("he", "she")) -> str:
    """Return one story.

    Args:
        rng: decides everything.
        genders: of all who take part but animals, which are `it`, and crowds.
    """
    state = cast(rng, genders)
    return _written(grammar().draw("story", state, rng.random))


@cache
def grammar() -> Grammar:
    """Return the grammar of the stories, compiled once."""
    return Grammar((path.read_text(encoding="utf-8") for path in texts()), {"pair": _pair})


class IoiWords(NamedTuple):
    """Words for prompts of indirect objects: what the stories give, to whom and where."""

    names: tuple[str, ...]
    gifts: tuple[str, ...]
    places: tuple[str, ...]


@cache
def ioi_words() -> IoiWords:
    """Return names of children, things they give and places; single tokens of GPT-2 too."""
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
    """Return the slots of everyone who may take part."""
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
    """Let x and y be two of the children, either first."""
    roles = ["h", "f"] if draw() < 0.5 else ["f", "h"]
    for slot, role in zip("xy", roles, strict=True):
        for key in ("", ".he", ".him", ".his"):
            state[slot + key] = state[role + key]


def _written(text: str) -> str:
    """Set articles, capital letters and spaces of a drawn text."""
    text = _SPACE.sub(" ", _PARAGRAPH.sub("\n\n", text)).strip()
    return _FIRST.sub(lambda first: first[0].upper(), _ARTICLE.sub(r"\1n", text))
