"""Load a user's pair generator: a Python function in a module or file, `place:function`."""

from random import Random
from typing import Any

from wirework.errors import InputError
from wirework.tasks.built_in import Generator
from wirework.tasks.task import Pair
from wirework.user_code import guarded, load_function


def load_generator(name: str) -> Generator:
    """Return the generator named `name` (syntax: `wirework.user_code.is_function`).

    The function takes a `random.Random`, from which alone it must draw, and returns a `Pair` or a
    tuple of two prompts and two answers.

    Raises:
        InputError: no such module, file or function, or the module raises; and from the generator:
            the function raises, or returns something else.
    """
    function = load_function(name, "task")
    title = name.rpartition(":")[2]

    def make(rng: Random) -> Pair:
        return _pair(guarded(lambda: function(rng), f"task {name}: {title}"), name)

    return make


def _pair(value: Any, name: str) -> Pair:
    """Convert the return value of a user's function to a pair."""
    if isinstance(value, Pair):
        return value
    halves = list(value) if isinstance(value, tuple | list) else []
    if len(halves) != 2 or not all(map(_two_texts, halves)):
        raise InputError(
            f"task {name} must return a Pair or two prompts and two answers, "
            f"((text, text), (text, text)); got {' '.join(repr(value)[:60].split())}"
        )
    try:
        return Pair(tuple(halves[0]), tuple(halves[1]))
    except InputError as error:
        raise InputError(f"task {name} returned no pair: {error}") from None


def _two_texts(value: Any) -> bool:
    is_row = isinstance(value, tuple | list)
    return is_row and len(value) == 2 and all(isinstance(text, str) for text in value)
