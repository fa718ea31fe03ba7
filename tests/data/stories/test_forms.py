import pytest

from wirework.data.stories.forms import ing, past, plural


@pytest.mark.parametrize(
    ("noun", "wanted"),
    [
        ("ball", "balls"),
        ("toy car", "toy cars"),
        ("box", "boxes"),
        ("peach", "peaches"),
        ("berry", "berries"),
        ("key", "keys"),
        ("picture book", "picture books"),
        ("goldfish", "goldfish"),
        ("wolf", "wolves"),
    ],
)
def test_plurals(noun: str, wanted: str):
    assert plural(noun) == wanted


@pytest.mark.parametrize(
    ("verb", "wanted", "going_on"),
    [
        ("walk", "walked", "walking"),
        ("dance", "danced", "dancing"),
        ("hop on one foot", "hopped on one foot", "hopping on one foot"),
        ("tidy the shed", "tidied the shed", "tidying the shed"),
        ("play chess", "played chess", "playing chess"),
        ("ride a bike", "rode a bike", "riding a bike"),
        ("listen", "listened", "listening"),
        ("shout", "shouted", "shouting"),
        ("row a boat", "rowed a boat", "rowing a boat"),
        ("fix it", "fixed it", "fixing it"),
        ("be a doctor", "was a doctor", "being a doctor"),
        ("tie a knot", "tied a knot", "tying a knot"),
    ],
)
def test_verbs(verb: str, wanted: str, going_on: str):
    assert (past(verb), ing(verb)) == (wanted, going_on)
