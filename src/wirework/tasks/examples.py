"""Show a few pairs of a task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wirework.errors import number_of
from wirework.tasks.load import load_task
from wirework.tasks.task import Task


def examples(task: Task | str | Path, n: int = 3) -> dict[str, Any]:
    """Return the first `n` pairs of a task, ready for JSON: `name`, `n_pairs` and `pairs`.

    Each of `pairs` has `prompts` and `answers`, as a line of a JSONL file.
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
    """Return the first `n` pairs as text: each prompt, under it the two answers.

    Args:
        task: a task, or what `ww.task` takes.
        n: how many.
        prompt_text: how a prompt is shown.
        answer_text: how an answer is shown.
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
