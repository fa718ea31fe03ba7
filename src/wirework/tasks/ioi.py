"""Indirect objects: who gets the gift, where two children were named and one of them gives it.

`When Tom and Lily went to the park, Tom gave a ball to` goes on with ` Lily` (Wang et al. 2022,
arXiv 2211.00593). The first prompt of a pair is the clean one; in the second, the corrupted one,
the other child gives, and nothing else differs, so that it wants the other name.
"""

from random import Random

from wirework.data.stories import ioi_words
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
"""No prompt begins with a name: at the beginning of a text it is another token than after a space.
A story of the corpus `stories` says it in these ways and others."""


def ioi(rng: Random) -> Pair:
    """Go on with the child who does not give.

    Either of the two named may give in the clean prompt, so neither the place of a name nor who
    gives says the answer: orders ABBA and BABA come equally often.
    """
    words = ioi_words()
    a, b = rng.sample(words.names, 2)
    gift, place = rng.choice(words.gifts), rng.choice(words.places)
    template = rng.choice(TEMPLATES)
    if gift[0] in "aeiou":
        template = template.replace(" a {gift}", " an {gift}")
    giver, other = (a, b) if rng.random() < 0.5 else (b, a)
    clean, corrupted = (
        template.format(a=a, b=b, gift=gift, place=place, giver=name) for name in (giver, other)
    )
    return Pair((clean, corrupted), (f" {other}", f" {giver}"))


def single_tokens() -> tuple[str, ...]:
    """Return the words that must be one token wherever a prompt has them."""
    return tuple(word for words in ioi_words() for word in words)
