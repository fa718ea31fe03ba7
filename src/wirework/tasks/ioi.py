"""Indirect object identification (IOI): two children are named, one gives, the other receives.

The right answer after `When Tom and Lily went to the park, Tom gave a ball to` is ` Lily`. In the
second, corrupted prompt of a pair the other child gives, so the other name is right. Path patching
may use another corrupted prompt, with three new names (`with_new_names`).
Source: Wang et al. 2022, arXiv 2211.00593.
"""

import re
from collections.abc import Callable
from random import Random

from wirework.data.stories import ioi_words
from wirework.errors import InputError
from wirework.tasks.task import Pair

TEMPLATES = (
    "When {a} and {b} went to the {place}, {giver} gave a {gift} to",
    "When {a} and {b} were at the {place}, {giver} handed a {gift} to",
    "After {a} and {b} came to the {place}, {giver} gave a {gift} to",
    "While {a} and {b} were at the {place}, {giver} offered a {gift} to",
    "Then, {a} and {b} went to the {place}. {giver} gave a {gift} to",
    "One day, {a} and {b} were at the {place}. {giver} showed a {gift} to",
    "One day, {a} and {b} had fun at the {place}, and {giver} gave a {gift} to",
    "One day, {a} and {b} found a {gift}. {giver} gave the {gift} to",
    "Then, {a} and {b} had a {gift}. {giver} handed the {gift} to",
    "At the {place}, {a} and {b} saw a {gift}. {giver} brought the {gift} to",
    "When {a} and {b} got a {gift} at the {place}, {giver} decided to give it to",
    "Then, {a} and {b} had a long talk. Afterwards {giver} gave a {gift} to",
)
"""No prompt begins with a name, which would be another token there than after a space. The corpus
`stories` has sentences of these forms and of others."""


def ioi(rng: Random) -> Pair:
    """Answer with the child who does not give.

    In the clean prompt the first or the second child gives, equally often (orders ABBA and BABA),
    so the position of a name does not determine the answer.
    """
    words = ioi_words()
    a, b = rng.sample(words.names, 2)
    gift, place = rng.choice(words.gifts), rng.choice(words.places)
    form = rng.choice(TEMPLATES)
    template = form
    if gift[0] in "aeiou":
        template = template.replace(" a {gift}", " an {gift}")
    giver, other = (a, b) if rng.random() < 0.5 else (b, a)
    clean, corrupted = (
        template.format(a=a, b=b, gift=gift, place=place, giver=name) for name in (giver, other)
    )
    return Pair((clean, corrupted), (f" {other}", f" {giver}"), form)


def with_new_names(pair: Pair, is_usable: Callable[[str], bool]) -> str:
    """Return the clean prompt of a pair with three other names: `When Mia and Ben ..., Sam gave`.

    The result is the ABC corruption of the paper: each name occurs once, so the prompt says nothing
    about who receives. The names depend on the clean prompt and `is_usable` alone.

    Args:
        pair: a pair of `ioi`.
        is_usable: whether a name may be drawn.

    Raises:
        InputError: fewer than three names besides those of the pair may be drawn.

    Source: Wang et al. 2022, sec. 3 (the distribution p_ABC).
    """
    clean = pair.prompts[0]
    replaced = [answer.strip() for answer in pair.answers]
    free = [name for name in ioi_words().names if name not in replaced and is_usable(name)]
    if len(free) < 3:
        raise InputError(
            f"new names need three that the tokeniser makes one token each, it has {len(free)} "
            f"besides {' and '.join(replaced)}: use another corruption"
        )
    drawn = iter(Random(f"new names {clean}").sample(free, 3))
    return re.sub(rf"\b({'|'.join(replaced)})\b", lambda _: next(drawn), clean)


def single_tokens() -> tuple[str, ...]:
    """Return the words that must be one token in every prompt."""
    return tuple(word for words in ioi_words() for word in words)
