"""Arguments shared by several verbs, and how they are read: flags, a behaviour, a text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wirework.console import say_once
from wirework.errors import DiskFullError, InputError
from wirework.signals import Interrupted, stopping

if TYPE_CHECKING:
    from wirework.data import Prepared, Tokens
    from wirework.model import Model
    from wirework.tasks import Task

Json = Annotated[bool, Parameter(negative="", help="Print the result as one JSON object.")]
Settings = Parameter(name="*")


def task_of(name: str) -> "Task":
    """Load a behaviour by its name, JSONL file or function."""
    from wirework.tasks import load_task

    return load_task(name)


def tokens_of(model: "Model", corpus: str) -> "Tokens":
    """Return the training tokens of a corpus, encoded with the model's tokeniser."""
    return prepared(model, corpus).train


def prepared(model: "Model", corpus: str) -> "Prepared":
    """Prepare a corpus with the model's tokeniser, or open a prepared one.

    A message names the folder of the tokens, which is created in the working directory.
    """
    from wirework.data import is_prepared, open_prepared, prepare, settings_of_run
    from wirework.tasks import tokenizer_of

    tokenizer, folder = tokenizer_of(model), Path(str(model.path))
    if not is_prepared(corpus):
        settings = settings_of_run(folder.parent, corpus)
        data = prepare(settings.model_copy(update={"tokenizer": folder / "tokenizer.json"}))
        say_once(f"the tokens of {corpus} are in {data.path}")
        return data
    data = open_prepared(corpus)
    if data.tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(f"{corpus} was prepared with another tokeniser than that of {folder}")
    return data


@contextmanager
def resumable(kept: Path) -> Iterator[None]:
    """If a signal or a full disk ends the block, print where the finished work is."""
    way_on = f"the same command goes on from what was saved in {kept}"
    with _ending(f"stopped; {way_on}"), once_there_is_room(way_on):
        yield


@contextmanager
def once_there_is_room(way_on: str) -> Iterator[None]:
    """If a full disk ends the block, print how to continue."""
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(f"{error}. Once there is room, {way_on}") from error


@contextmanager
def not_resumable(kept: Path | None = None) -> Iterator[None]:
    """If a signal ends the block, print that unfinished work is lost.

    Args:
        kept: folder of the finished work; None if there is none.
    """
    said = "nothing was saved" if kept is None else f"what is not in {kept} yet is lost"
    with _ending(f"stopped; {said}"):
        yield


@contextmanager
def _ending(said: str) -> Iterator[None]:
    with stopping() as stop:
        try:
            with stop.at_once(said):
                yield
        except Interrupted as error:  # training has its own message on how to continue
            raise Interrupted(error.number, said) from error
        except Exception:  # an interrupted import of a C module raises another error
            stop.leave_if_requested(said)
            raise
