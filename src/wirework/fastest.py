"""Choose the fastest of several implementations on this machine, by one measurement.

Each choice is measured once per machine and saved in the user's cache folder. Later processes reuse
it, because another implementation may round the last bits of a sum differently.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wirework import files
from wirework.cache_folder import cache_folder
from wirework.errors import InputError
from wirework.locks import locked, no_lock

CLEARLY = 1.1
"""Speed relative to the default from which another implementation is chosen."""

_ROUNDS = 5
_LEAST_SECONDS = 5e-4  # minimum of one timing; shorter calls are repeated
_LOCK_SECONDS = 5.0  # maximum wait for another process that measures
_VERSION = 1
_ENVIRONMENT = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "WIREWORK_COMPILED",
    "WIREWORK_PRODUCTS",
)
"""Environment variables that limit the instruction sets of libraries, or force one."""

_chosen: dict[tuple[str, str], str] = {}
_record: dict[str, str] = {}


def choose(
    question: str,
    default: str,
    ways: Callable[[], Mapping[str, Callable[[], Any]]],
    clock: Callable[[], float] | None = None,
) -> str:
    """Return the name of the fastest implementation, as first measured on this machine.

    Args:
        question: operation and shape class; the key under which the choice is saved.
        default: implementation to use unless another is clearly faster.
        ways: returns the candidates by name, each a function without arguments; called only to
            measure.
        clock: returns seconds; None for CPU time on one thread, else the time of day.
    """
    key = (machine(torch.get_num_threads()), question)
    if key not in _chosen:
        _chosen[key] = _remembered_or_measured(key, default, ways, clock)
    _record[question] = _chosen[key]
    return _chosen[key]


@contextmanager
def collected_choices() -> Iterator[dict[str, str]]:
    """Yield a dict that collects the choices made in the block, by question."""
    global _record
    before, _record = _record, {}
    try:
        yield _record
    finally:
        _record = before


def adopt(machine_then: str, choices: Mapping[str, str]) -> bool:
    """Use choices recorded on a machine if it is this one; return whether it is."""
    now = machine(torch.get_num_threads())
    if machine_then != now:
        return False
    _chosen.update({(now, question): way for question, way in choices.items()})
    return True


@cache
def machine(threads: int) -> str:
    """Return the facts that a choice depends on: processor, instructions, libraries, threads."""
    limits = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
    parts = [
        processor(),
        torch.backends.cpu.get_cpu_capability(),
        *limits,
        f"torch {torch.__version__}",
        f"numpy {np.__version__}",
        f"{threads} threads",
    ]
    return ", ".join(parts)


def processor() -> str:
    """Return the processor's name and model numbers, or the machine type if unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    pairs = (line.partition(":") for line in reversed(lines))  # the first one wins
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    name = fields.get("model name", platform.machine())
    numbers = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def remembered() -> dict[str, tuple[str, dict[str, float]]]:
    """Return the saved choices of this machine with this number of threads, by question.

    Returns:
        The chosen implementation, and the milliseconds of each.
    """
    answers = _read(_cache_file()).get(machine(torch.get_num_threads()), {})
    return {name: (a["way"], a["milliseconds"]) for name, a in sorted(answers.items())}


def milliseconds(
    ways: Mapping[str, Callable[[], Any]], clock: Callable[[], float] | None = None
) -> dict[str, float]:
    """Return the milliseconds of a call of each implementation: the minimum of a few rounds.

    The implementations alternate. On one thread the thread's CPU time is measured, which other
    processes affect less. One that is twice as slow as another is dropped after the first round.
    """
    if clock is None:
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    best: dict[str, float] = {}
    repeats: dict[str, int] = {}
    for name, way in ways.items():
        way()
        took = _time(way, 1, clock)
        repeats[name] = max(1, int(_LEAST_SECONDS / max(took, 1e-7)))
        best[name] = took
    for _ in range(_ROUNDS):
        least = min(best.values())
        for name, way in ways.items():
            if best[name] < 2 * least:
                best[name] = min(best[name], _time(way, repeats[name], clock))
    return {name: round(1e3 * seconds, 4) for name, seconds in best.items()}


def _time(way: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        way()
    return (clock() - start) / repeats


def _remembered_or_measured(
    key: tuple[str, str],
    default: str,
    ways: Callable[[], Mapping[str, Callable[[], Any]]],
    clock: Callable[[], float] | None,
) -> str:
    path = _cache_file()
    answer = _look_up(path, key)
    if answer is None:
        # One process at a time, so that choices agree and timings are not disturbed.
        with _alone(path):
            answer = _look_up(path, key)
            if answer is None:
                # A choice may be due in inference, and some ways compute gradients.
                with torch.inference_mode(False):
                    answer = _measure(default, ways(), clock)
                _remember(path, key, answer)
    return str(answer["way"])


def _measure(
    default: str, ways: Mapping[str, Callable[[], Any]], clock: Callable[[], float] | None
) -> dict[str, Any]:
    times = milliseconds(ways, clock) if len(ways) > 1 else dict.fromkeys(ways, 0.0)
    fastest = min(times, key=lambda name: times[name])
    clear = default not in times or times[default] > CLEARLY * times[fastest]
    return {"way": fastest if clear else default, "milliseconds": times}


def _cache_file() -> Path | None:
    """Return the path of the saved choices, or None without a home folder."""
    folder = cache_folder()
    return None if folder is None else folder / "fastest.json"


def _look_up(path: Path | None, key: tuple[str, str]) -> dict[str, Any] | None:
    return _read(path).get(key[0], {}).get(key[1])


def _read(path: Path | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Return machine to question to answer; empty if the file has another format."""
    try:
        content = json.loads(path.read_bytes()) if path else {}
        known = content["machines"] if content.get("version") == _VERSION else {}
        return {
            machine: {question: a for question, a in answers.items() if _is_answer(a)}
            for machine, answers in known.items()
        }
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return {}


def _is_answer(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("way") in answer.get("milliseconds", ())


def _remember(path: Path | None, key: tuple[str, str], answer: dict[str, Any]) -> None:
    """Add an answer to the file; ignore a file that cannot be written."""
    if path is None:
        return
    machines = _read(path)
    machines.setdefault(key[0], {})[key[1]] = answer
    with suppress(OSError, InputError):
        files.write_json(path, {"version": _VERSION, "machines": machines})


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Hold a lock beside the cache file; continue without it after a timeout."""
    with ExitStack() as stack:
        if path is not None and not no_lock():
            with suppress(InputError):
                lock = locked(path.with_suffix(".lock"), str(path), timeout=_LOCK_SECONDS)
                stack.enter_context(lock)
        yield
