"""Get a task by name: one of the built-in generators, or a user's JSONL file."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wirework.errors import InputError, nearest
from wirework.tasks.bracket_counting import bracket_counting
from wirework.tasks.for_while import for_while
from wirework.tasks.single_double_quote import single_double_quote
from wirework.tasks.task import Pair, Task, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model

BUILT_IN: Mapping[str, Callable[[Random], Pair]] = MappingProxyType(
    {
        "single_double_quote": single_double_quote,
        "bracket_counting": bracket_counting,
        "for_while": for_while,
    }
)
"""Name to generator of one pair."""

N_PAIRS = 1024
"""Pairs of a built-in task unless another number is asked for."""

_MOST_STALE = 1000


def load_task(
    name_or_path: str | Path,
    model: "Model | None" = None,
    *,
    seed: int = 0,
    n: int | None = None,
) -> Task:
    """Return a built-in task or one read from a JSONL file.

    Args:
        name_or_path: a name of `BUILT_IN`, or a file with a pair a line,
            `{"prompts": [text, text], "answers": [text, text]}`.
        model: given, the task is checked to fit it; the pairs are the same with or without.
        seed: of a built-in task's pairs; a file is taken as it is.
        n: how many pairs; None for 1024 of a built-in task and all of a file.

    Raises:
        InputError: unknown name, unreadable file or line, fewer pairs than `n`, or a task that
            does not fit the model.
    """
    if n is not None and n < 1:
        raise InputError(f"a task needs at least one pair, {n} were asked for")
    task = _load(name_or_path, seed, n)
    if model is not None:
        task.fitted(tokenizer_of(model), model.config.n_ctx)
    return task


def _load(name_or_path: str | Path, seed: int, n: int | None) -> Task:
    name = str(name_or_path)
    if name in BUILT_IN:
        pairs = draw_pairs(BUILT_IN[name], f"{name} {seed}", N_PAIRS if n is None else n)
        return Task(name, pairs, generated=True, seed=seed)
    path = Path(name_or_path)
    if path.exists() or path.suffix or len(path.parts) > 1:
        return _read(path, n)
    raise _unknown(name)


def check_names(names: Iterable[str | Path]) -> None:
    """Check that each name is a built-in task or a file, which is not read.

    Raises:
        InputError: one is neither; with the nearest name.
    """
    for name in names:
        path = Path(name)
        if str(name) not in BUILT_IN and (path.is_dir() or not path.exists()):
            raise _unknown(str(name))


def _unknown(name: str) -> InputError:
    known = ", ".join(BUILT_IN)
    return InputError(f"no task or file {name!r}; tasks are {known}{nearest(name, BUILT_IN)}")


def draw_pairs(make: Callable[[Random], Pair], seed: str, n: int) -> tuple[Pair, ...]:
    """Return `n` distinct pairs of a generator; a larger `n` gives the same ones and more.

    Raises:
        InputError: a thousand draws in a row gave nothing new.
    """
    rng = Random(seed)
    pairs: dict[Pair, None] = {}
    stale = 0
    while len(pairs) < n:
        before = len(pairs)
        pairs[make(rng)] = None
        stale = 0 if len(pairs) > before else stale + 1
        if stale == _MOST_STALE:
            raise InputError(f"{n} distinct pairs were asked for, there are about {len(pairs)}")
    return tuple(pairs)


def _read(path: Path, n: int | None) -> Task:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot read task {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"task {path} is not UTF-8 text: byte {error.start}") from None
    found: dict[frozenset[tuple[str, str]], tuple[int, Pair]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            pair = _parse(line, f"{path}, line {number}")
            first, _ = found.setdefault(pair.content, (number, pair))
            if first != number:  # a copy could train a circuit and be held out too
                raise InputError(f"{path}, line {number}: the same pair as in line {first}")
    pairs = [pair for _, pair in found.values()]
    if not pairs:
        raise InputError(f"task {path} has no pairs")
    if n is not None and len(pairs) < n:
        raise InputError(f"task {path} has {len(pairs)} pairs, {n} were asked for")
    return Task(path.stem, tuple(pairs[:n]), path=str(path))


def _parse(line: str, where: str) -> Pair:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict) or sorted(value) != ["answers", "prompts"]:
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{where}: a pair has the keys 'prompts' and 'answers', got {got}")
    try:
        return Pair(_texts(value["prompts"], "prompts"), _texts(value["answers"], "answers"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _texts(value: Any, what: str) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(t, str) for t in value):
        raise InputError(f"{what} must be a list of two texts, got {json.dumps(value)[:60]}")
    return value[0], value[1]
