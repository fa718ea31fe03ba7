from itertools import islice

import pytest

from wirework.tasks import (
    PYTHON_TASKS,
    ioi_practice_texts,
    load_task,
    practice_texts,
    quote_practice_texts,
)


def test_texts_are_prompts_with_their_right_answers_of_all_tasks_in_turn() -> None:
    texts = list(islice(practice_texts(), 400))
    quotes = [text for text in texts if text.endswith(("')", '")'))]
    assert 16 <= len(quotes) <= 30  # two of each pair, one pair in twenty
    assert all(text.rstrip("')\"").count(text[-2]) % 2 for text in quotes)
    assert len(set(texts)) == 400


@pytest.mark.slow
def test_no_text_is_a_prompt_that_a_task_measures() -> None:
    texts = set(islice(practice_texts(), 20_000))
    assert texts == set(islice(practice_texts(), 20_000))
    for name in PYTHON_TASKS:
        for pair in load_task(name).pairs:
            assert not texts & {
                prompt + answer for prompt, answer in zip(pair.prompts, pair.answers, strict=True)
            }


def test_those_of_quotes_are_right_and_none_that_the_task_measures() -> None:
    texts = list(islice(quote_practice_texts(), 5000))
    prompts = {prompt for pair in load_task("single_double_quote").pairs for prompt in pair.prompts}
    assert all(text.endswith(("')", '")')) for text in texts)
    assert all(text[:-2].count(text[-2]) % 2 for text in texts)
    assert not prompts & {text[:-2] for text in texts}


def test_those_of_ioi_are_sentences_that_it_does_not_measure() -> None:
    texts = list(islice(ioi_practice_texts(), 5000))
    prompts = {prompt for pair in load_task("ioi").pairs for prompt in pair.prompts}
    for text in texts:
        prompt, _, name = text.removesuffix(".").rpartition(" ")
        assert text.endswith(".")
        assert prompt not in prompts
        assert name in prompt.split()[:8]  # the one of the two who does not give
    assert len(set(texts)) == len(texts)
