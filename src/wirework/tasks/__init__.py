"""Tasks: pairs of prompts with two answers that test a behaviour."""

from collections.abc import Mapping

from wirework.console import warn_once
from wirework.tasks.built_in import BUILT_IN_TASKS, PYTHON_TASKS, Generator
from wirework.tasks.evaluate import (
    TaskReport,
    accuracy_warning,
    all_reports,
    differences,
    evaluate,
    kl_divergence,
    logit_difference,
    pair_losses,
    task_accuracy,
    task_reports,
    tasks_for,
)
from wirework.tasks.examples import examples, readable
from wirework.tasks.load import check_names, load_task
from wirework.tasks.performance import TaskTable, accuracy_error, performs, task_table
from wirework.tasks.practice import ioi_practice_texts, practice_texts, quote_practice_texts
from wirework.tasks.rephrase import rephrased
from wirework.tasks.task import Pair, Task, TokenizedPairs, tokenizer_of

__all__ = [
    "BUILT_IN_TASKS",
    "PYTHON_TASKS",
    "Pair",
    "Task",
    "TaskReport",
    "TaskTable",
    "TokenizedPairs",
    "accuracy_error",
    "accuracy_warning",
    "all_reports",
    "check_names",
    "differences",
    "evaluate",
    "examples",
    "ioi_practice_texts",
    "kl_divergence",
    "load_task",
    "logit_difference",
    "pair_losses",
    "performs",
    "practice_texts",
    "quote_practice_texts",
    "readable",
    "rephrased",
    "task_accuracy",
    "task_reports",
    "task_table",
    "tasks_for",
    "tokenizer_of",
]

_OLD_NAMES = {"BUILT_IN": "PYTHON_TASKS", "KNOWN": "BUILT_IN_TASKS"}


def __getattr__(name: str) -> Mapping[str, Generator]:
    """Return a constant by its old name, with a warning; the old names go with the next release."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_once(f"wirework.tasks.{name} is called {_OLD_NAMES[name]} now")
    value: Mapping[str, Generator] = globals()[_OLD_NAMES[name]]
    return value
