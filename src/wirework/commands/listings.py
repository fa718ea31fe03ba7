"""Verbs that list behaviours and describe the machine."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from wirework.commands.arguments import Json, task_of
from wirework.commands.printing import print_next, print_verdict, show_all, show_rows
from wirework.commands.task_audit import print_contamination, print_shortcuts
from wirework.commands.task_rows import print_tasks
from wirework.console import Progress
from wirework.errors import InputError, number_of


def tasks(
    model: Path | None = None,
    /,
    *,
    task: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    show: str | None = None,
    contamination: str | None = None,
    max_bytes: Annotated[int, Parameter(validator=validators.Number(gte=1))] | None = None,
    shortcuts: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Print the behaviours, or how a model does at each, or examples of one.

    Also: how many prompts occur in a corpus, and what the length or the last token of a prompt
    tells of its answer.

    Args:
        model: Model or run folder.
        task: Names, JSONL files or functions (`my_tasks.py:make_pair`); none: all built-in
            behaviours, with a model the twenty on Python and others that fit it.
        show: Name, JSONL file or function of one behaviour: print a few of its pairs instead.
        contamination: Corpus (as in `data.corpus`) or run folder: print which share of each
            behaviour's prompts occurs in its text.
        max_bytes: With --contamination: bytes of the text to read. Default: 60 MB of a corpus, all
            text of a run.
        shortcuts: Print how often a linear probe on the length, the number of lines or the last
            token of a prompt tells the answer; with a model, in tokens of its tokeniser.
    """
    if contamination is not None and (model is not None or show is not None or shortcuts):
        raise InputError(
            "--contamination compares prompts with text: give no MODEL or other report"
        )
    if max_bytes is not None and contamination is None:
        raise InputError("--max-bytes is for --contamination")
    if contamination is not None:
        print_contamination(contamination, task, max_bytes, as_json=json)
        return
    if shortcuts and show is None:
        print_shortcuts(task, model, as_json=json)
        return
    if show is not None:
        if model is not None or task or shortcuts:
            raise InputError(
                "--show prints pairs as they are: give no MODEL, --task or --shortcuts"
            )
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
