"""Behaviours: pairs of prompts and the two answers."""

from wirework.tasks.evaluate import (
    TaskReport,
    all_reports,
    differences,
    evaluate,
    logit_difference,
    pair_losses,
)
from wirework.tasks.load import BUILT_IN, check_names, load_task
from wirework.tasks.task import Encoded, Pair, Task, tokenizer_of

__all__ = [
    "BUILT_IN",
    "Encoded",
    "Pair",
    "Task",
    "TaskReport",
    "all_reports",
    "check_names",
    "differences",
    "evaluate",
    "load_task",
    "logit_difference",
    "pair_losses",
    "tokenizer_of",
]
