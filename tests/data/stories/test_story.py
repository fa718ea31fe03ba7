"""What holds in every story, on thousands of sentences of many seeds."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from wirework.config import DataConfig
from wirework.data import Tokenizer, documents, prepare, single_token
from wirework.data.answers import answers_for, story_answers
from wirework.data.stories import bounded, grammar, ioi_words, stories, tell
from wirework.data.stories.story import Gender, cast

N = 1200
MALE = r"\b(?:he|him|his|himself|boy|dad|daddy|grandpa|uncle)\b"
FEMALE = r"\b(?:she|her|hers|herself|girl|mom|mommy|grandma|aunt)\b"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(islice(stories(5), N))


@pytest.fixture(scope="module")
def joined(texts: list[str]) -> str:
    return "\n".join(texts)


def found(pattern: str, text: str) -> list[str]:
    """Return what fits, with some text around it."""
    return [text[max(m.start() - 30, 0) : m.end() + 30] for m in re.finditer(pattern, text)]


class TestStories:
    def test_the_same_seed_tells_the_same_stories_and_another_one_others(self, texts: list[str]):
        assert list(islice(stories(5), 50)) == texts[:50]
        assert not set(islice(stories(6), 500)) & set(texts)

    def test_no_story_is_told_twice(self, texts: list[str]):
        assert len(set(texts)) == N

    def test_articles_fit_the_word_behind(self, joined: str):
        assert found(r"\b[Aa] (?:[aeio]|u(?!ni|ku))", joined) == []
        assert found(r"\b[Aa]n (?:[^aeiouAEIOUh]|uni|uku|h(?!on))", joined) == []
        assert found(r"\ba honest", joined) == []
        assert len(found(r"\ban ", joined)) > 300

    def test_sentences_begin_with_capital_letters_and_end(self, texts: list[str], joined: str):
        assert found(r'[.!?] [a-z]|\n"?[a-z]|(?:^|\s)"[a-z]|\." [a-z]', joined) == []
        # After ! or ? a small letter is right only where it goes on with who said it.
        said = "said|asked|thought|shouted|cried"
        assert found(rf'[!?]" (?:s?he|(?:his|her) \w+) (?!{said})', joined) == []
        assert all(text[0].isupper() or text[:2].strip('"').isupper() for text in texts)
        assert all(
            re.search(r'[.!?]"?$', paragraph) for text in texts for paragraph in text.split("\n\n")
        )

    def test_quotes_are_balanced_in_every_paragraph(self, texts: list[str]):
        for paragraph in (paragraph for text in texts for paragraph in text.split("\n\n")):
            assert paragraph.count('"') % 2 == 0, paragraph
            spoken = paragraph.split('"')[1::2]
            assert all(part and part == part.strip() and part[-1] in ".,!?" for part in spoken)

    def test_nothing_of_the_notation_and_no_odd_space_is_left(self, joined: str):
        assert found(r"[\[\]{}<>|¶]|  | [.,!?]|,,|\.\.|\n\n\n", joined) == []

    def test_what_was_lost_is_found(self, texts: list[str]):
        lost = [
            re.search(r'"I lost my ([^"]+)," said (\w+)\.', text)
            for text in islice(stories(1), 4000)
            if '"I lost my ' in text
        ]
        assert len(lost) > 15
        for match in filter(None, lost):
            later = match.string[match.end() :]
            assert match[1].split(" ", 1)[1] in later
            assert match[2] in later

    def test_vocabulary_is_a_few_thousand_words(self):
        words = Counter(
            word for text in bounded(2, 3_000_000) for word in re.findall(r"[a-z]+", text.lower())
        )
        assert 2500 < len(words) < 5000

    def test_indirect_objects_come_in_both_orders(self):
        scene, gift = r"(\w+) and (\w+) (?:went to|were at|came to) the \w+", r"an? (?:\w+ )?\w+"
        pattern = re.compile(rf"{scene}(?:,|\.) (\w+) \w+ {gift} to (\w+)\.")
        orders: Counter[str] = Counter()
        for text in islice(stories(9), 6000):
            for a, b, giver, taker in pattern.findall(text):
                assert {giver, taker} == {a, b}
                orders["ABBA" if giver == b else "BABA"] += 1
        assert min(orders.values()) > 60
        assert 0.7 < orders["ABBA"] / orders["BABA"] < 1.4


@pytest.mark.parametrize(("gender", "others"), [("she", MALE), ("he", FEMALE)])
def test_pronouns_are_those_of_who_takes_part(gender: Gender, others: str):
    rng = Random(f"all {gender}")
    for _ in range(700):
        text = tell(rng, [gender])
        assert found(f"(?i:{others})", text) == [], text


def test_every_plot_can_be_told_in_every_way():
    """A slot that is used before it is kept would be missing from the state."""
    rules, rng = grammar(), Random(3)
    plots = sorted(set(rules.templates["plot"]))
    assert len(plots) >= 40
    for plot in plots:
        for _ in range(150):
            assert rules.draw(plot[1:-1], cast(rng, ("he", "she")), rng.random)


def test_the_corpus_is_bounded_by_its_bytes_and_by_its_seed():
    config = DataConfig(corpus="stories", max_bytes=20_000)
    texts = list(documents(config))
    assert sum(len(text.encode()) for text in texts) == 20_000
    assert texts[:5] == list(islice(stories(0), 5))
    other = DataConfig(corpus="stories", max_bytes=20_000, stories_seed=4)
    assert next(documents(other)) == next(stories(4))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = DataConfig(corpus="stories", max_bytes=1_500_000, vocab_size=2048, workers=1)
    return prepare(config, tmp_path_factory.mktemp("cache"), progress=False)


class TestStoryAnswers:
    def test_names_gifts_and_places_are_single_tokens(self, prepared):
        tokenizer: Tokenizer = prepared.tokenizer
        for answer in story_answers():
            single_token(tokenizer, answer.prompt, answer.text)
        words = ioi_words()
        assert len(words.names) == 64
        assert len(tokenizer.encode(" gave a ball to Lily.")) == 6

    def test_a_python_corpus_keeps_its_answers(self):
        assert answers_for(DataConfig()) == answers_for(
            DataConfig(corpus="notes", answers="python")
        )
        assert answers_for(DataConfig(corpus="stories")) == story_answers()
        assert answers_for(DataConfig(answers="stories")) == story_answers()
        assert answers_for(DataConfig(corpus="stories", answers="none")) == ()
