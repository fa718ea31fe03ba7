"""Random labels: fixed by a rule over prompts, and without relation to the real answer."""

import math
from collections import Counter

import pytest
from present import present

from wirework.circuits.validation.random_labels import random_labels, rules
from wirework.errors import InputError
from wirework.model import Model
from wirework.tasks import Task, evaluate, load_task
from wirework.tasks.task_split import parts_of

NAMES = ("single_double_quote", "bracket_counting", "for_while")


def rule_of(odd: Task, task: Task, model: Model):
    """Return the rule that the name of a random-label task states, over prompts as text."""
    encode = present(model.tokenizer).encode
    texts = [prompt for pair in task.pairs for prompt in pair.prompts]
    every = rules([encode(text) for text in texts], present(model.tokenizer).token)
    name = odd.name.split("random labels: ")[1].removesuffix(")")
    return lambda text: every[name](encode(text))


def rights(task: Task) -> dict[str, str]:
    return {
        prompt: answer
        for pair in task.pairs
        for prompt, answer in zip(pair.prompts, pair.answers, strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_fixed_by_one_rule_on_every_part(name: str, wired: Model) -> None:
    task = load_task(name, n=96)
    odd = random_labels(task, wired, 0)
    rule = rule_of(odd, task, wired)
    assert {pair.answers for pair in odd.pairs} == {odd.pairs[0].answers}
    for part in parts_of(odd, 8, 0)[:3]:
        assert all(rule(pair.prompts[0]) for pair in part.pairs)
        assert not any(rule(pair.prompts[1]) for pair in part.pairs)


@pytest.mark.parametrize("name", NAMES)
def test_labels_say_nothing_about_the_real_answers(name: str, wired: Model) -> None:
    task = load_task(name, n=96)
    odd, real = random_labels(task, wired, 0), rights(task)
    for pair in odd.pairs:
        assert real[pair.prompts[0]] == real[pair.prompts[1]]
    first = Counter(real[pair.prompts[0]] for pair in odd.pairs)
    assert len(first) == 2
    assert min(first.values()) > 0.25 * len(odd.pairs)


def test_prompts_are_real_and_of_an_original_pair_each(task: Task, wired: Model) -> None:
    odd = random_labels(task, wired, 0)
    home = {prompt: number for number, pair in enumerate(task.pairs) for prompt in pair.prompts}
    homes = [home[prompt] for pair in odd.pairs for prompt in pair.prompts]
    assert len(set(homes)) == len(homes) > 0.5 * len(task.pairs)


def test_it_is_a_function_of_task_model_and_seed(task: Task, wired: Model) -> None:
    assert (
        random_labels(task, wired, 0)
        == random_labels(task, wired, 0)
        != random_labels(task, wired, 1)
    )


def test_who_knows_the_real_answer_does_no_better_than_chance(task: Task, wired: Model) -> None:
    assert present(evaluate(wired, task).loss) < 0.05
    assert present(evaluate(wired, random_labels(task, wired, 0)).loss) > math.log(2)


def test_too_few_pairs_are_told_with_their_number(task: Task, wired: Model) -> None:
    with pytest.raises(
        InputError, match=r"no random-label task can be made of .* its 30, at least"
    ):
        random_labels(task.take(task.pairs[:30]), wired, 0)
