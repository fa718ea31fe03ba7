"""The first pairs of a task, for JSON or as text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wirework.errors import number_of
from wirework.tasks.load import load_task
from wirework.tasks.task import Task


def examples(task: Task | str | Path, n: int = 3) -> dict[str, Any]:
    """Return the first pairs of a task as JSON values.

    Args:
        task: a task, or what `ww.task` takes.
        n: number of pairs.

    Returns:
        `name`, `n_pairs` (of the whole task) and `pairs`, each with `prompts` and `answers`.
    """
    task = load_task(task)
    pairs = [
        {"prompts": list(pair.prompts), "answers": list(pair.answers)} for pair in task.pairs[:n]
    ]
    return {"name": task.name, "n_pairs": len(task.pairs), "pairs": pairs}


def readable(
    task: Task | str | Path,
    n: int = 3,
    *,
    prompt_text: Callable[[str], str] = str,
    answer_text: Callable[[str], str] = repr,
) -> str:
    """Return the first pairs as text: each prompt, followed by its two answers.

    Args:
        task: a task, or what `ww.task` takes.
        n: number of pairs.
        prompt_text: converts a prompt for display.
        answer_text: converts an answer for display.
    """
    task = load_task(task)
    parts = [f"{task.name}: {number_of(len(task.pairs), 'pair')}"]
    for number, pair in enumerate(task.pairs[:n], 1):
        for prompt, right, wrong in zip(
            pair.prompts, pair.answers, pair.answers[::-1], strict=True
        ):
            text = prompt_text(prompt)
            end = "" if text.endswith("\n") else "\n"
            answers = f"{answer_text(right)}, not {answer_text(wrong)}"
            parts.append(f"--- pair {number}\n{text}{end}>>> {answers}")
    return "\n".join(parts)
