"""A run names its model if its text was drawn from the generators of the tasks."""

from collections.abc import Callable
from typing import Any

import pytest

from wirework.circuits.node_assembly import model_part
from wirework.config import TrainConfig
from wirework.model import load
from wirework.training import train

OF_TASKS = {"corpus": "programs", "mix": "wirework.tasks:practice_texts"}


@pytest.mark.parametrize(
    ("data", "trained_on_tasks"), [(OF_TASKS, True), ({"corpus": "programs"}, False)]
)
def test_the_model_of_a_run_says_whether_its_text_was_drawn_from_tasks(
    settings: Callable[..., TrainConfig], data: dict[str, Any], trained_on_tasks: bool
) -> None:
    data = {**data, "max_bytes": 60_000, "answers": "none"}
    run = train(settings(steps=1, eval_every=1, data=data), progress=False)
    for model in (run.model, load(run.path)):
        assert model.trained_on_tasks is trained_on_tasks
        assert model_part(model).trained_on_tasks is trained_on_tasks


def test_text_of_the_user_s_own_may_be_anything(settings: Callable[..., TrainConfig]) -> None:
    assert settings().data.draws_from_tasks is None
    of_tasks = settings(data={"mix": OF_TASKS["mix"]})
    assert of_tasks.data.draws_from_tasks is True
