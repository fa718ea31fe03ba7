from collections import Counter
from dataclasses import replace

import pytest

from wirework.tasks import BUILT_IN_TASKS, Pair, Task, load_task
from wirework.tasks.task_split import MIN_TEMPLATES, held_out_templates, parts_of


def task_of(n_templates: int, pairs_each: int = 12) -> Task:
    return Task(
        "t",
        tuple(
            Pair((f"a {t} {i}", f"b {t} {i}"), ("x", "y"), f"form {t}")
            for t in range(n_templates)
            for i in range(pairs_each)
        ),
    )


@pytest.mark.parametrize(("n_templates", "n_apart"), [(4, 1), (7, 1), (8, 2), (12, 3)])
def test_a_quarter_of_the_templates_is_held_out(n_templates: int, n_apart: int) -> None:
    task = task_of(n_templates)
    apart = held_out_templates(task, 0)
    assert apart is not None
    assert len(apart) == n_apart
    parts = parts_of(task, 8, 0)
    assert parts.held_out_templates is not None
    assert {pair.template for pair in parts.held_out_templates.pairs} == apart
    assert len(parts.held_out_templates.pairs) == 12 * n_apart
    for part in (parts.train, parts.judge, parts.held_out):
        assert apart.isdisjoint(pair.template for pair in part.pairs)
    n_others = len(parts.train.pairs) + len(parts.judge.pairs) + len(parts.held_out.pairs)
    assert n_others == 12 * (n_templates - n_apart)


def test_the_seed_decides_which() -> None:
    task = task_of(12)
    assert held_out_templates(task, 0) == held_out_templates(task, 0)
    assert len({held_out_templates(task, seed) for seed in range(5)}) > 1


def test_too_few_templates_are_not_split() -> None:
    few = task_of(MIN_TEMPLATES - 1)
    assert held_out_templates(few, 0) is None
    assert parts_of(few, 8, 0).held_out_templates is None
    without = few.take([replace(pair, template=None) for pair in few.pairs])
    assert parts_of(without, 8, 0).held_out_templates is None


def test_all_templates_can_be_used() -> None:
    task = task_of(8)
    parts = parts_of(task, 8, 0, hold_out_templates=False)
    assert parts.held_out_templates is None
    for part in (parts.train, parts.judge, parts.held_out):
        assert {pair.template for pair in part.pairs} == {pair.template for pair in task.pairs}


def test_a_pair_that_shares_a_prompt_is_not_held_out() -> None:
    task = task_of(4)
    apart = held_out_templates(task, 0)
    assert apart is not None
    held = min(apart)
    seen = next(pair for pair in task.pairs if pair.template not in apart)
    shared = Pair((seen.prompts[0], "another"), ("x", "y"), held)
    parts = parts_of(task.take([*task.pairs, shared]), 8, 0)
    assert parts.held_out_templates is not None
    assert shared not in parts.held_out_templates.pairs


@pytest.mark.parametrize("name", BUILT_IN_TASKS)
def test_every_built_in_task_has_templates_to_hold_out(name: str) -> None:
    parts = parts_of(load_task(name), 128, 0)
    assert parts.held_out_templates is not None
    assert len(parts.held_out_templates.pairs) >= 32
    assert len(parts.train.pairs) >= 256


def test_parts_have_the_same_templates() -> None:
    task = load_task("single_double_quote")
    parts = parts_of(task, 128, 0)
    counts = [Counter(pair.template for pair in part.pairs) for part in parts[:3]]
    sizes = [len(part.pairs) for part in parts[:3]]
    assert sizes[1] == 128
    assert sizes[2] == sum(sizes) // 4
    assert len({pair for part in parts[:3] for pair in part.pairs}) == sum(sizes)
    for template, count in counts[0].items():
        for other, size in zip(counts[1:], sizes[1:], strict=True):
            assert abs(other[template] - count * size / sizes[0]) <= 2
