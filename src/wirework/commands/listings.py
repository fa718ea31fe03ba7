"""Verbs that list what there is to work with: behaviours, the machine."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from wirework.commands.arguments import Json, task_of
from wirework.commands.printing import show_all, show_rows
from wirework.console import Progress
from wirework.errors import InputError


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
        task: Names, JSONL files or functions (`my_tasks.py:make_pair`); if none is given, all
            built-in ones, and with a model the twenty on Python and what else fits it.
        show: Name, JSONL file or function of one behaviour: print a few of its pairs instead.
    """
    if show is not None:
        if model is not None or task:
            raise InputError("--show prints pairs as they are: give no MODEL and no --task")
        _show_pairs(show, json)
        return
    from wirework.tasks import BUILT_IN_TASKS, all_reports, check_names, tokenizer_of

    check_names(task)
    if model is None:
        rows = [{"name": name} for name in task or BUILT_IN_TASKS]
    else:
        from wirework.model import load

        with Progress("tasks", None):
            loaded = load(model)
            tokenizer_of(loaded)
            rows = all_reports(loaded, task or None)
    show_rows("tasks", rows if json else [_shown(row) for row in rows], json)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a task's row with its answers, texts and numbers of tokens, as a person can read."""
    from wirework.view.text import quoted

    answers = ", ".join(f"{quoted(text)} {token}" for text, token in row.get("answers") or ())
    return {**row, "answers": answers} if "answers" in row else row


def _show_pairs(name: str, as_json: bool) -> None:
    from wirework.tasks import examples, readable
    from wirework.view.text import plain_lines, quoted

    task = task_of(name)
    text = readable(task, prompt_text=plain_lines, answer_text=quoted)
    print(json.dumps(examples(task)) if as_json else text)


def doctor(*, json: Json = False) -> None:
    """Print what this machine has and what of it wirework will use."""
    from wirework.doctor import examine

    show_all("doctor", examine(), json, products="products")
