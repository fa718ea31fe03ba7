"""Verbs that list behaviours and describe the machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wirework.commands.arguments import Json, task_of
from wirework.commands.printing import print_next, print_verdict, show_all, show_rows
from wirework.commands.task_rows import print_tasks
from wirework.console import Progress
from wirework.errors import InputError, number_of


def tasks(
    model: Path | None = None,
    /,
    *,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    show: str | None = None,
    json: Json = False,
) -> None:
    """Print the behaviours, or how a model does at each, or examples of one.

    Args:
        model: Model or run folder.
        task: Names, JSONL files or functions (`my_tasks.py:make_pair`); none: all built-in
            behaviours, with a model the twenty on Python and others that fit it.
        show: Name, JSONL file or function of one behaviour: print a few of its pairs instead.
    """
    if show is not None:
        if model is not None or task:
            raise InputError("--show prints pairs as they are: give no MODEL and no --task")
        _show_pairs(show, json)
        return
    from wirework.tasks import BUILT_IN_TASKS, TaskTable, check_names, task_reports, tokenizer_of

    check_names(task)
    if model is None:
        names = [*(task or BUILT_IN_TASKS)]
        if not json:
            print_verdict(f"{number_of(len(names), 'behaviour')} that a model may have")
        show_rows("tasks", [{"name": name} for name in names], json)
        if not json:
            print_next("tasks", "--show", names[0])
        return
    from wirework.model import load

    with Progress("tasks", None):
        loaded = load(model)
        tokenizer_of(loaded)
        reports = task_reports(loaded, task or None)
    if json:
        show_rows("tasks", [asdict(report) for report in reports], json)
    else:
        print_tasks(TaskTable.of(reports), model, with_reasons=bool(task))


def _show_pairs(name: str, as_json: bool) -> None:
    from wirework.tasks import examples, readable
    from wirework.view.visible_text import plain_lines, quoted_label

    task = task_of(name)
    text = readable(task, prompt_text=plain_lines, answer_text=quoted_label)
    print(json.dumps(examples(task)) if as_json else text)
    if not as_json:
        print_next("tasks", "MODEL", "--task", name)


def doctor(*, json: Json = False) -> None:
    """Print the machine's hardware and what wirework uses of it."""
    from wirework.doctor import examine

    facts = examine()
    if not json:
        print_verdict(
            f"{facts['device']}, {number_of(facts['threads'], 'thread')}: {facts['precision']} is "
            "the faster precision"
        )
    show_all("doctor", facts, json, products="products (milliseconds; lower is better)")
    if not json:
        print_next("demo", "--out", "runs")
