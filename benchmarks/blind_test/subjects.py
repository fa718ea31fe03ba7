"""Models with a mechanism for a task, from which circuits are taken."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import wirework as ww
from benchmarks.blind_test.planted_model import (
    Node,
    Variant,
    planted_model,
    with_one_answer,
    with_one_deciding_token,
)
from wirework.circuits.masking.training_text import training_text_of
from wirework.config import PruneConfig
from wirework.model import Model
from wirework.tasks import Task, load_task

PLANTED_TASKS = ("single_double_quote", "for_while", "while_return_true", "indent_for")
TRAINED_TASKS = ("single_double_quote", "while_return_true", "indent_for")
"""Tasks that the model of `recipes/demo.yaml` performs."""
PAIRS = 96
SEARCH = PruneConfig(
    trials=1, parallel=1, steps=40, batch_pairs=8, eval_pairs=24, lr=2e-2, k_coef=1e-3,
    finalists=1, extra_rankings=(),
)  # fmt: skip
"""The usual search, made quick for models with a planted circuit."""


class Subject(NamedTuple):
    """A model that performs a task."""

    name: str
    model: Model
    task: Task
    text: Any
    """Text for means and resampled values."""
    planted: tuple[Node, ...]
    """Nodes of the mechanism; none if the model was trained."""
    search: PruneConfig
    """Settings of a search."""


def planted_subject(
    seed: int, variant: Variant = "plain", *, latent_labels: bool = True
) -> Subject:
    """Return a hand-wired model; the seed draws the task, its pairs, places and weights."""
    from hand_wired import Corpus

    name = PLANTED_TASKS[seed % len(PLANTED_TASKS)]
    task = with_one_answer(load_task(name, seed=seed, n=2 * PAIRS), PAIRS)
    planted = planted_model(task, seed, variant, latent_labels=latent_labels)
    task = with_one_deciding_token(planted.model, task)
    assert planted.model.tokenizer is not None
    text = Corpus(planted.model.tokenizer, task)
    return Subject(f"planted {seed}", planted.model, task, text, tuple(planted.nodes), SEARCH)


def trained_subject(run: Path, seed: int) -> Subject:
    """Return a trained model; the seed draws the task and its pairs."""
    from wirework.demo import PRUNING

    model, text = _trained(run)
    changes = {"trials": 2, "parallel": 2, "finalists": 1, "extra_rankings": (), "eval_pairs": 64}
    search = PruneConfig.overridden(PRUNING, {**changes, "mean_tokens": 50_000})
    name = TRAINED_TASKS[seed % len(TRAINED_TASKS)]
    task = load_task(name, seed=seed, n=256)
    return Subject(f"trained {seed}", model, task, text, (), search)


@lru_cache(maxsize=1)
def _trained(run: Path) -> tuple[Model, Any]:
    model = ww.load(run)
    return model, training_text_of(model, None)
