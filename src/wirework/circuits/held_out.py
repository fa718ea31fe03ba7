"""Held-out pairs of a circuit: those that neither trained nor judged it.

The search of a circuit splits its task into training, judging and held-out pairs. This module
repeats that split, and for another task drops the pairs that share a prompt with the first two.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from wirework.circuit_format import Document, TaskPart
from wirework.errors import InputError, number_of
from wirework.tasks import Task, load_task, tokenizer_of
from wirework.tasks.earlier_tasks import earlier_task
from wirework.tasks.task_split import Parts, fingerprint, parts_of, used_fingerprint
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.model import Model


class Pairs(NamedTuple):
    """The pairs of a circuit by their use in the search."""

    full_task: Task
    """The task of the search, with all pairs that fit the model."""
    judge: Task | None
    """The judging pairs; None if the circuit is checked on another task."""
    held_out: Task
    """Pairs to check the circuit on: none of their prompts trained or judged it."""
    train: Task
    """The training pairs of the search."""
    held_out_templates: Task | None = None
    """Pairs of templates that the search has not seen; None: the task has too few templates, or
    the circuit is checked on another task."""


def pairs_of(
    document: Document, model: "Model", task: Task | None, own_task: Task | None = None
) -> Pairs:
    """Return the pairs of a circuit by their use, and the held-out pairs to check it on.

    Args:
        document: document of the circuit.
        model: its model.
        task: task to check it on; None for the task of its search. Pairs of another task that share
            a prompt with a training or judging pair are dropped.
        own_task: the task of its search. Needed if a user's function generates it and `task` has
            other pairs: a function that only circuit.json names is not run.

    Raises:
        InputError: the task does not fit the model, no pair is held out, or the pairs of the search
            cannot be determined.
    """
    about = document.task
    fitted = _own_task(about, task, own_task).fitted(tokenizer_of(model), model.config.n_ctx)
    parts = _parts(document, fitted)
    if task is None or fingerprint(task) == about.fingerprint:
        return Pairs(fitted, parts.judge, parts.held_out, parts.train, parts.held_out_templates)
    checked_task = task.fitted(tokenizer_of(model), model.config.n_ctx)
    return Pairs(fitted, None, _without_used_prompts(checked_task, parts), parts.train)


def _own_task(about: TaskPart, task: Task | None, own_task: Task | None) -> Task:
    """Return the task that a circuit was found for, with all pairs.

    A user's function is run only if the caller names it, never because circuit.json names it.

    Raises:
        InputError: the pairs are not available or have changed.
    """
    problem = "which pairs were used to find the circuit is unknown"
    origin = about.path or about.name
    changed = f"{problem}: {origin} gives other pairs now; give the task it was found for"
    for candidate in (own_task, task):
        if candidate is None:
            continue
        if (own_pairs := _regenerated(about, candidate)) is not None:
            return own_pairs
        if candidate.generated and candidate.path and candidate.path == about.path:
            raise InputError(changed)
    if own_task is not None:
        raise InputError(f"task {own_task.name} is not the one that the circuit was found for")
    flag = "--task" if task is None else "--own-task"
    refuse_saved_function(origin, f"{problem}: they come from", flag)
    try:
        own_pairs = load_task(origin, seed=about.seed, n=about.n_all)
    except InputError as error:
        raise InputError(f"{problem}: {error}") from None
    earlier = earlier_task(origin, about.seed, about.n_all)
    for pairs in (own_pairs, earlier):
        if pairs is not None and fingerprint(pairs) == about.fingerprint:
            return pairs
    raise InputError(changed)


def _regenerated(about: TaskPart, candidate: Task) -> Task | None:
    """Return the circuit's own task if the candidate is it; None otherwise.

    A user's function is called again, with the seed and number of pairs of the search.
    """
    is_same = fingerprint(candidate) == about.fingerprint
    if not is_same and candidate.path is not None and candidate.generated:
        with suppress(InputError):
            candidate = load_task(candidate.path, seed=about.seed, n=about.n_all)
    return candidate if fingerprint(candidate) == about.fingerprint else None


def _parts(about: Document, fitted: Task) -> Parts:
    """Split a circuit's own task as its finder did.

    Raises:
        InputError: the split gives other pairs than the finder's, as after a change of templates in
            a file of pairs.
    """
    eval_pairs = about.provenance.settings.get("eval_pairs", about.task.n_pairs)
    parts = parts_of(fitted, eval_pairs, about.provenance.seed)
    for use, recorded, part in (
        ("was judged on", about.task.n_pairs, parts.judge),
        ("held out", about.task.n_held_out or len(parts.held_out.pairs), parts.held_out),
    ):
        if len(part.pairs) != recorded:
            raise InputError(
                f"the circuit {use} {number_of(recorded, 'pair')}, but the split of its task's "
                f"{len(fitted.pairs)} pairs gives {len(part.pairs)}: give pairs of another task"
            )
    if about.task.used_fingerprint not in (None, used_fingerprint(parts)):
        raise InputError(
            f"the split of task {about.task.name} gives other training and judging pairs than when "
            "the circuit was found (have the templates of its pairs changed?): give pairs of "
            "another task"
        )
    return parts


def _without_used_prompts(task: Task, parts: Parts) -> Task:
    """Return the pairs of a task with no prompt of a training or judging pair.

    Raises:
        InputError: there are none.
    """
    used_pairs = (pair for part in (parts.train, parts.judge) for pair in part.pairs)
    used = {prompt for pair in used_pairs for prompt in pair.prompts}
    unused_pairs = [pair for pair in task.pairs if used.isdisjoint(pair.prompts)]
    if not unused_pairs:
        raise InputError(
            f"the circuit's search has seen prompts of all {number_of(len(task.pairs), 'pair')}: "
            "give other pairs"
        )
    return task.take(unused_pairs)
