"""Tasks: pairs of prompts with two answers that test a behaviour."""

from wirework.renamed_names import old_names
from wirework.tasks.built_in import BUILT_IN_TASKS, PYTHON_TASKS
from wirework.tasks.evaluate import (
    TaskReport,
    accuracy_warning,
    all_reports,
    differences,
    evaluate,
    kl_divergence,
    logit_difference,
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
from wirework.tasks.task_loss import pair_losses

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

__getattr__ = old_names(
    __name__,
    BUILT_IN="PYTHON_TASKS",
    Encoded="TokenizedPairs",
    KNOWN="BUILT_IN_TASKS",
    doubt="accuracy_warning",
    skill="task_accuracy",
)
