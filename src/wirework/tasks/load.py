"""Get a task by name: a built-in generator, a user's function or a user's JSONL file."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from wirework.errors import InputError, nearest, quoted
from wirework.files import exists
from wirework.tasks.built_in import KNOWN, SINGLE_TOKENS, Generator
from wirework.tasks.pairs_file import read_pairs
from wirework.tasks.task import Pair, Task, tokenizer_of
from wirework.tasks.user_function import load_generator
from wirework.user_code import is_function

if TYPE_CHECKING:
    from wirework.model import Model

N_PAIRS = 1024
"""Pairs of a task that a function makes unless another number is asked for."""

_MOST_STALE = 1000


def load_task(
    name_or_path: str | Path | Task,
    model: "Model | str | Path | None" = None,
    *,
    seed: int = 0,
    n: int | None = None,
) -> Task:
    """Return a built-in task, one that a user's function makes, or one read from a JSONL file.

    Args:
        name_or_path: a name of `KNOWN`; a function `(random.Random) -> Pair` of a module or file
            (`mymodule:make_pair`, `my_tasks.py:make_pair`), which runs; or a file with a pair a
            line, `{"prompts": [text, text], "answers": [text, text]}`. A task stays as it is.
        model: given, itself or its path, the task is checked to fit it; the pairs are the same
            with or without.
        seed: of the pairs that a function makes; a file is taken as it is.
        n: how many pairs; None for 1024 of a built-in task, as many as there are up to that of a
            user's function and all of a file.

    Raises:
        InputError: unknown name, unreadable file or line, a function that is missing, raises or
            returns no pair, fewer pairs than `n`, a task with `n` or `seed`, or one that does not
            fit the model.
    """
    if n is not None and n < 1:
        raise InputError(f"a task needs at least one pair, {n} were asked for")
    if not isinstance(name_or_path, Task):
        task = _load(name_or_path, seed, n)
    elif n is None and seed == 0:
        task = name_or_path
    else:
        raise InputError("a task keeps its pairs: n and seed are for names; take(pairs) for some")
    if model is not None:
        from wirework.model import load

        model = load(model)
        task.fitted(tokenizer_of(model), model.config.n_ctx)
    return task


def _load(name_or_path: str | Path, seed: int, n: int | None) -> Task:
    name = str(name_or_path)
    if name in KNOWN:
        pairs = draw_pairs(KNOWN[name], f"{name} {seed}", N_PAIRS if n is None else n)
        single = SINGLE_TOKENS[name]() if name in SINGLE_TOKENS else ()
        return Task(name, pairs, generated=True, seed=seed, single=single)
    path = Path(name_or_path)
    if is_function(name):
        make, title = load_generator(name), name.rpartition(":")[2]
        if n is None:
            pairs = distinct_pairs(make, f"{title} {seed}", N_PAIRS)
        else:
            pairs = draw_pairs(make, f"{title} {seed}", n)
        return Task(title, pairs, generated=True, seed=seed, path=name)
    if path.suffix == ".py":
        raise InputError(f"task {name}: say which function makes the pairs, {name}:function")
    if exists(path) or path.suffix or len(path.parts) > 1:
        return read_pairs(path, n)
    raise _unknown(name)


def check_names(names: Iterable[str | Path]) -> None:
    """Check that each name is a built-in task, a function's or a file; none is run or read.

    Raises:
        InputError: one is neither; with the nearest name.
    """
    for name in names:
        path = Path(name)
        known = str(name) in KNOWN or is_function(str(name))
        if not known and (not exists(path) or path.is_dir()):
            raise _unknown(str(name))


def _unknown(name: str) -> InputError:
    known = ", ".join(KNOWN)
    return InputError(f"no task or file {quoted(name)}; tasks are {known}{nearest(name, KNOWN)}")


def draw_pairs(make: Generator, seed: str, n: int) -> tuple[Pair, ...]:
    """Return `n` distinct pairs of a generator; a larger `n` gives the same ones and more.

    Raises:
        InputError: a thousand draws in a row gave nothing new.
    """
    pairs = distinct_pairs(make, seed, n)
    if len(pairs) < n:
        raise InputError(f"{n} distinct pairs were asked for, there are about {len(pairs)}")
    return pairs


def distinct_pairs(make: Generator, seed: str, most: int) -> tuple[Pair, ...]:
    """Return up to `most` distinct pairs, fewer where a thousand draws in a row are old ones.

    A pair with its prompts exchanged is the same: it could train a circuit and be held out too.
    """
    rng = Random(seed)
    pairs: dict[frozenset[tuple[str, str]], Pair] = {}
    stale = 0
    while len(pairs) < most and stale < _MOST_STALE:
        before = len(pairs)
        pair = make(rng)
        pairs.setdefault(pair.content, pair)
        stale = 0 if len(pairs) > before else stale + 1
    return tuple(pairs.values())
