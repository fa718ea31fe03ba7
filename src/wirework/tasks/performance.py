"""Which of many tasks a model performs: a table of task reports, best first."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wirework.summaries import Report
from wirework.tasks.evaluate import MIN_ACCURACY, TaskReport, task_reports

if TYPE_CHECKING:
    from wirework.model import Model

Performance = Literal["yes", "partly", "no"]

_CHANCE = 0.5
_ERRORS = 2.0
"""Standard errors by which an accuracy must differ from a bound to count."""


def accuracy_error(report: TaskReport) -> float | None:
    """Return the standard error of a task report's accuracy; None without numbers.

    The two prompts of a pair count as one observation, since a model often gives both the same
    answer.
    """
    if report.accuracy is None:
        return None
    return math.sqrt(report.accuracy * (1 - report.accuracy) / report.n_pairs)


def performs(report: TaskReport) -> Performance | None:
    """Return whether the model performs the task; None where the task does not fit the model.

    `yes`: the accuracy is above 0.75, midway between chance and 1, by two standard errors; `no`: it
    is not above chance (0.5) by two; `partly`: all else.
    """
    error = accuracy_error(report)
    if report.accuracy is None or error is None:
        return None
    least = report.accuracy - _ERRORS * error
    if least > MIN_ACCURACY:
        return "yes"
    return "partly" if least > _CHANCE else "no"


@dataclass(frozen=True, repr=False)
class TaskTable(Report):
    """Performance of a model on many tasks, lowest loss first; tasks that do not fit come last."""

    tasks: tuple[TaskReport, ...]

    @classmethod
    def of(cls, reports: Iterable[TaskReport]) -> "TaskTable":
        """Return the table of these reports."""
        return cls(tuple(sorted(reports, key=_loss)))

    def that(self, answer: Performance | None) -> tuple[TaskReport, ...]:
        """Return the reports of the tasks that the model performs, or not, as in `performs`."""
        return tuple(report for report in self.tasks if performs(report) == answer)

    def summary(self) -> dict[str, Any]:
        """Return how many tasks the model performs, and which ones."""
        does = [report.name for report in self.that("yes")]
        return {
            "yes": len(does),
            "partly": len(self.that("partly")),
            "no": len(self.that("no")),
            "do not fit": len(self.that(None)),
            "performs": ", ".join(does) or "none",
        }


def task_table(
    model: "Model | str | Path", names: Iterable[str | Any] | None = None, *, n: int = 256
) -> TaskTable:
    """Measure a model on tasks.

    Args:
        model: with a tokeniser; a path is loaded.
        names: built-in names or paths; None: those of `tasks_for`.
        n: pairs per built-in task; of a file, all pairs are used.

    Raises:
        InputError: no model at the path, or a task that does not exist.
    """
    return TaskTable.of(task_reports(model, names, n=n))


def _loss(report: TaskReport) -> float:
    return math.inf if report.loss is None else report.loss
