"""Terminal table of a model's performance on each behaviour."""

from pathlib import Path
from typing import TYPE_CHECKING

from wirework.commands.printing import (
    cell,
    print_next,
    print_paragraph,
    print_table,
    print_verdict,
)
from wirework.errors import number_of
from wirework.view.visible_text import quoted_label

if TYPE_CHECKING:
    from wirework.tasks import TaskReport, TaskTable

_COLUMNS = ["task", "model does it", "accuracy", "loss", "logit difference", "KL", "pairs",
            "answers (token)"]  # fmt: skip


def print_tasks(table: "TaskTable", model: Path, *, with_reasons: bool) -> None:
    """Print which behaviours a model performs, its numbers, and the next command.

    Args:
        table: reports of the behaviours.
        model: path of the model.
        with_reasons: print why behaviours do not fit the model.
    """
    does, fitting = table.that("yes"), [report for report in table.tasks if report.valid]
    names = f": {', '.join(one.name for one in does)}" if does else ""
    print_verdict(
        f"the model does {len(does)} of {number_of(len(fitting), 'behaviour')} that fit it{names}"
    )
    if fitting:
        title = (
            "accuracy: 1.00 = always right, 0.50 = chance; loss in nats: lower is better, chance "
            "0.693; KL in nats between the two prompts of a pair: higher = they differ more"
        )
        print_table(title, _COLUMNS, [_row(report) for report in fitting])
        print_paragraph(
            "yes: accuracy above 0.75 by two standard errors; no: not above chance by two; partly: "
            "in between."
        )
    other = table.that(None)
    if other and not with_reasons:
        tasks = ", ".join(report.name for report in other)
        print_paragraph(f"{len(other)} do not fit its tokeniser or context: {tasks}")
        print_paragraph(f"The reason: wirework tasks {model} --task {other[0].name}")
    for report in other if with_reasons else ():
        print_paragraph(f"{report.name} does not fit: {report.reason}")
    best = fitting[0] if fitting else None
    if best is not None and best in (*does, *table.that("partly")):
        print_next("prune", model, best.name, "--out", Path("circuits") / best.name)
    else:
        print_next("explain", model, "--out", Path("explained") / model.name)


def _row(report: "TaskReport") -> list[str]:
    from wirework.tasks import accuracy_error, performs

    answers = ", ".join(f"{quoted_label(text)} {token}" for text, token in report.answers)
    skipped = f" ({report.n_skipped} skipped)" if report.n_skipped else ""
    accuracy = f"{report.accuracy:.2f} ± {accuracy_error(report):.2f}"
    numbers = [cell(value) for value in (report.loss, report.logit_difference, report.kl)]
    return [
        report.name, str(performs(report)), accuracy, *numbers, f"{report.n_pairs}{skipped}",
        answers,
    ]  # fmt: skip
