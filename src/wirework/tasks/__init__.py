"""Tasks: pairs of prompts with two answers that test a behaviour."""

from wirework.tasks.built_in import BUILT_IN, KNOWN
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
    tasks_for,
)
from wirework.tasks.examples import examples, readable
from wirework.tasks.load import check_names, load_task
from wirework.tasks.practice import ioi_practice_texts, practice_texts, quote_practice_texts
from wirework.tasks.rephrase import rephrased
from wirework.tasks.task import Pair, Task, TokenizedPairs, tokenizer_of

__all__ = [
    "BUILT_IN",
    "KNOWN",
    "Pair",
    "Task",
    "TaskReport",
    "TokenizedPairs",
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
    "practice_texts",
    "quote_practice_texts",
    "readable",
    "rephrased",
    "task_accuracy",
    "tasks_for",
    "tokenizer_of",
]
