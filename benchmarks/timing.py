"""Times of functions that alternate, so that other programs disturb all of them alike."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

Step = Callable[[], object]


def clock() -> Callable[[], float]:
    """Return the clock of this process: CPU time with one thread, elapsed time with more.

    CPU time hardly depends on what else runs. With several threads it would count their waiting.
    """
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def alternate(
    steps: Mapping[str, Step],
    rounds: int,
    warm_up: int = 1,
    before_round: Step = lambda: None,
    calls: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, list[float]]:
    """Return the seconds of a call of each function in each round.

    Args:
        steps: functions by name.
        rounds: rounds that count.
        warm_up: rounds before them.
        before_round: called before each round, not timed.
        calls: calls in a round, by name, of functions whose calls differ; once by default.
    """
    now = clock()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(warm_up + rounds):
        before_round()
        for name, step in steps.items():
            n_calls, start = calls.get(name, 1), now()
            for _ in range(n_calls):
                step()
            if round_ >= warm_up:
                seconds[name].append((now() - start) / n_calls)
    return seconds


def over(seconds: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each round, whose times are close together."""
    return [one / other for one, other in zip(seconds, others, strict=True)]


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of all child processes that have ended."""
    return time.process_time() + child_seconds()


def child_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
