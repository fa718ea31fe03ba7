"""Which pairs a circuit was found with, and which it never saw."""

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from wirework.circuit_format import Document, TaskPart
from wirework.errors import InputError, number_of
from wirework.tasks import Task, load_task, tokenizer_of
from wirework.tasks.split import Parts, fingerprint, parts_of
from wirework.user_code import refuse_saved_function

if TYPE_CHECKING:
    from wirework.model import Model


class Pairs(NamedTuple):
    """A circuit's pairs, by what they were used for."""

    full_task: Task
    """The task that it was found for, all pairs that fit the model."""
    judge: Task | None
    """Those that judged it; None where the pairs in question are of another task."""
    held_out: Task
    """Those in question of whose prompts none trained or judged it."""


def pairs_of(
    document: Document, model: "Model", task: Task | None, own_task: Task | None = None
) -> Pairs:
    """Sort the pairs that a circuit is to be checked on.

    Args:
        document: the circuit's.
        model: its model.
        task: None for the one that it was found for. Of a task with other pairs, those with a
            prompt that trained or judged the circuit are left out.
        own_task: the one that it was found for; needed where a function makes it and `task` has
            other pairs, as a function that only the circuit's file names is not run.

    Raises:
        InputError: the task does not fit the model, none of its pairs is left, or which pairs were
            used to find the circuit cannot be told.
    """
    about = document.task
    own = task is None or fingerprint(task) == about.fingerprint
    fitted = _own_task(about, task, own_task).fitted(tokenizer_of(model), model.config.n_ctx)
    parts = _parts(document, fitted)
    if task is None or own:
        return Pairs(fitted, parts.judge, parts.held_out)
    given = task.fitted(tokenizer_of(model), model.config.n_ctx)
    return Pairs(fitted, None, _without_used_prompts(given, parts))


def _own_task(about: TaskPart, task: Task | None, own_task: Task | None) -> Task:
    """Return all pairs of the task that a circuit was found for.

    A function is run only under the name that the user gave it, never under the file's.

    Raises:
        InputError: the pairs cannot be had, or are not the same any more.
    """
    why = "which pairs were used to find the circuit cannot be told"
    origin = about.path or about.name
    changed = f"{why}: {origin} gives other pairs now; give the task it was found for"
    for given in (own_task, task):
        if given is not None and (own_pairs := _regenerated(about, given)) is not None:
            return own_pairs
        if given is not None and given.generated and given.path and given.path == about.path:
            raise InputError(changed)
    if own_task is not None:
        raise InputError(f"task {own_task.name} is not the one that the circuit was found for")
    flag = "--task" if task is None else "--own-task"
    refuse_saved_function(origin, f"{why}: they come from", flag)
    try:
        own_pairs = load_task(origin, seed=about.seed, n=about.n_all)
    except InputError as error:
        raise InputError(f"{why}: {error}") from None
    if fingerprint(own_pairs) != about.fingerprint:
        raise InputError(changed)
    return own_pairs


def _regenerated(about: TaskPart, given: Task) -> Task | None:
    """Return the pairs that a circuit was found for from a task that the user gave, if it has them.

    The user's function is asked once more, for as many pairs of the same seed as were used then.
    """
    if fingerprint(given) != about.fingerprint and given.path is not None and given.generated:
        with suppress(InputError):
            given = load_task(given.path, seed=about.seed, n=about.n_all)
    return given if fingerprint(given) == about.fingerprint else None


def _parts(about: Document, fitted: Task) -> Parts:
    """Part a circuit's own task as its finder did.

    Raises:
        InputError: the finder did not judge by as many pairs as `parts_of` gives.
    """
    asked = about.provenance.settings.get("eval_pairs", about.task.n_pairs)
    parts = parts_of(fitted, asked, about.provenance.seed)
    if len(parts.judge.pairs) != about.task.n_pairs:
        raise InputError(
            f"the circuit was judged on {number_of(about.task.n_pairs, 'pair')}, which is no "
            f"part of its task's {len(fitted.pairs)} that can be repeated: give pairs of another "
            "task"
        )
    return parts


def _without_used_prompts(task: Task, parts: Parts) -> Task:
    """Return the pairs of a task neither of whose prompts trained or judged a circuit.

    Raises:
        InputError: there are none.
    """
    used_pairs = (pair for part in (parts.train, parts.judge) for pair in part.pairs)
    used = {prompt for pair in used_pairs for prompt in pair.prompts}
    unused_pairs = [pair for pair in task.pairs if used.isdisjoint(pair.prompts)]
    if not unused_pairs:
        raise InputError(
            f"of the {number_of(len(task.pairs), 'pair')} given the circuit's search has seen all: "
            "give others"
        )
    return task.take(unused_pairs)
