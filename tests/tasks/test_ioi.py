import re
from collections import Counter

import pytest
import torch
from present import present

from wirework.config import ModelConfig
from wirework.data import Tokenizer, train_tokenizer
from wirework.data.answers import story_answers
from wirework.data.stories import bounded, ioi_words
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.tasks import (
    BUILT_IN_TASKS,
    PYTHON_TASKS,
    Pair,
    Task,
    all_reports,
    evaluate,
    kl_divergence,
    load_task,
    tasks_for,
)
from wirework.tasks.ioi import TEMPLATES, with_new_names


@pytest.fixture(scope="module")
def story_tokenizer() -> Tokenizer:
    return train_tokenizer(bounded(0, 500_000), 1024, story_answers())


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("ioi")


def names_in(prompt: str) -> list[str]:
    known = set(ioi_words().names)
    return [word for word in re.findall(r"\w+", prompt) if word in known]


class TestIoi:
    def test_ioi_is_known_by_name_and_is_not_one_of_the_twenty(self, task: Task):
        assert "ioi" in BUILT_IN_TASKS
        assert "ioi" not in PYTHON_TASKS
        assert len(PYTHON_TASKS) == 20
        assert len(task.pairs) == 1024
        with pytest.raises(InputError, match="did you mean 'ioi'"):
            load_task("iois")

    def test_the_answer_is_who_does_not_give_and_the_corrupted_prompt_has_the_other(
        self, task: Task
    ):
        for pair in task.pairs:
            (a, b, giver), (a2, b2, other) = map(names_in, pair.prompts)
            assert (a, b) == (a2, b2)
            assert a != b
            assert {giver, other} == {a, b}
            assert pair.answers == (f" {other}", f" {giver}")
            # The prompts differ in that one word.
            before, after = (prompt.split() for prompt in pair.prompts)
            assert sum(x != y for x, y in zip(before, after, strict=True)) == 1
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", pair.prompts[0])

    def test_orders_givers_and_templates_all_come_equally_often(self, task: Task):
        clean = Counter(names_in(pair.prompts[0]).index(pair.answers[0][1:]) for pair in task.pairs)
        assert 400 < clean[0] < 624  # ABBA: the answer is named first
        assert clean[0] + clean[1] == 1024
        starts = Counter(pair.prompts[0].split()[0] for pair in task.pairs)
        assert set(starts) == {template.split()[0] for template in TEMPLATES}
        assert all(name not in ioi_words().names for name in starts)
        assert len({name for pair in task.pairs for name in pair.answers}) == 64

    def test_pairs_are_distinct_and_a_function_of_the_seed(self, task: Task):
        assert len({pair.content for pair in task.pairs}) == 1024
        assert load_task("ioi", n=5).pairs == task.pairs[:5]
        assert not set(load_task("ioi", seed=1).pairs) & set(task.pairs)

    def test_prompts_of_a_pair_have_equal_length_and_differ_in_one_token(
        self, task: Task, story_tokenizer: Tokenizer
    ):
        fitted = task.fitted(story_tokenizer, 64)
        assert fitted.pairs == task.pairs
        rows = fitted.encode(story_tokenizer, 64)
        assert torch.equal(rows.last_positions[::2], rows.last_positions[1::2])
        assert torch.equal(
            (rows.tokens[::2] != rows.tokens[1::2]).sum(1), torch.ones(1024, dtype=torch.int64)
        )
        assert torch.equal(rows.answers[::2], rows.answers[1::2].flip(1))

    def test_pairs_with_a_word_of_several_tokens_are_left_out(self, story_tokenizer: Tokenizer):
        known = Pair(("Tom has a hat", "Lily has a hat"), (" a", " b"))
        split = Pair(("Tom has a xylophone", "Lily has a xylophone"), (" a", " b"))
        task = Task("t", (known, split) * 20, generated=True, single=("hat", "xylophone"))
        assert set(task.fitted(story_tokenizer, 16).pairs) == {known}
        none = Task("t", (split,) * 20, generated=True, single=("xylophone",))
        with pytest.raises(InputError, match="the first: 'xylophone' is not one token"):
            none.fitted(story_tokenizer, 16)


class TestWithNewNames:
    def test_three_new_names_take_the_places_of_the_three(self):
        pair = Pair(
            (
                "When Tom and Lily went to the park, Tom gave a ball to",
                "When Tom and Lily went to the park, Lily gave a ball to",
            ),
            (" Lily", " Tom"),
        )
        usable = {"Tom", "Lily", "Ben", "Mia", "Sam"}  # three besides those of the pair
        prompt = with_new_names(pair, usable.__contains__)
        found = re.fullmatch(r"When (\w+) and (\w+) went to the park, (\w+) gave a ball to", prompt)
        assert sorted(present(found).groups()) == ["Ben", "Mia", "Sam"]

    def test_each_pair_keeps_its_template_and_gets_three_distinct_names(
        self, task: Task, story_tokenizer: Tokenizer
    ):
        positions = Counter[str]()
        for pair in task.pairs:
            clean, prompt = pair.prompts[0], with_new_names(pair, bool)
            old, new = names_in(clean), names_in(prompt)
            assert len(new) == len(set(new)) == 3
            assert not set(new) & set(old)
            for name in old:  # the first occurrence each time: in the order of the prompt
                clean = re.sub(rf"\b{name}\b", "NAME", clean, count=1)
            for name in new:
                prompt = re.sub(rf"\b{name}\b", "NAME", prompt, count=1)
            assert prompt == clean
            ids = [
                story_tokenizer.encode(with_new_names(pair, bool)),
                story_tokenizer.encode(pair.prompts[0]),
            ]
            assert len(ids[0]) == len(ids[1])
            positions.update(new)
        assert len(positions) == len(ioi_words().names)

    def test_the_names_are_a_function_of_the_prompt(self, task: Task):
        first = [with_new_names(pair, bool) for pair in task.pairs[:9]]
        assert [with_new_names(pair, bool) for pair in task.pairs[8::-1]] == first[::-1]

    def test_too_few_names_are_refused(self, task: Task):
        pair = task.pairs[0]
        with pytest.raises(InputError, match=r"new names need three .* it has 0 besides"):
            with_new_names(pair, lambda name: f" {name}" in pair.answers)


def small(tokenizer: Tokenizer) -> Model:
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, n_ctx=80, n_layer=1, d_model=16, d_head=8, bigram=False
    )
    return Model(Transformer(config, seed=1), tokenizer)


class TestReports:
    def test_a_report_has_the_logit_difference_and_the_divergence(
        self, task: Task, story_tokenizer: Tokenizer
    ):
        model = small(story_tokenizer)
        report = evaluate(model, task.take(task.pairs[:100]))
        clean, corrupted, logit_diffs = [], [], []
        for pair in task.pairs[:100]:
            right, wrong = (story_tokenizer.encode(answer)[0] for answer in pair.answers)
            with torch.no_grad():
                first, second = (
                    model(torch.tensor([story_tokenizer.encode(prompt)]))[0, -1]
                    for prompt in pair.prompts
                )
            logit_diffs += [first[right] - first[wrong], second[wrong] - second[right]]
            clean.append(first)
            corrupted.append(second)
        assert report.logit_difference == pytest.approx(
            float(torch.stack(logit_diffs).mean()), abs=1e-6
        )
        wanted = kl_divergence(torch.stack(clean), torch.stack(corrupted)).mean()
        assert report.kl == pytest.approx(float(wanted), rel=1e-3)
        assert present(report.kl) > 0

    def test_all_tasks_of_a_model_are_the_twenty_and_ioi_where_it_fits(
        self, story_tokenizer: Tokenizer, code_tokenizer: Tokenizer
    ):
        assert tasks_for(small(code_tokenizer)) == tuple(PYTHON_TASKS)
        assert tasks_for(small(story_tokenizer)) == (*PYTHON_TASKS, "ioi")
        rows = all_reports(small(code_tokenizer), ["ioi"], n=20)
        assert not rows[0]["valid"]
        assert "does not fit this tokeniser" in rows[0]["reason"]
