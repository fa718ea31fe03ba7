"""Built-in tasks as training text, for models too small to learn them from other text."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from random import Random

from wirework.tasks.built_in import PYTHON_TASKS
from wirework.tasks.ioi import ioi
from wirework.tasks.load import N_PAIRS, draw_pairs
from wirework.tasks.task import Pair


def practice_texts() -> Iterator[str]:
    """Yield prompts with their right answers, alternating between tasks, endlessly.

    Prompts of a task's 1,024 default pairs are excluded, so that these pairs measure
    generalisation. Each text ends with its answer, tokenised as in the task.
    """
    return _answered(PYTHON_TASKS)


def quote_practice_texts() -> Iterator[str]:
    """Yield the texts of `practice_texts` for `single_double_quote` only."""
    return _answered({"single_double_quote": PYTHON_TASKS["single_double_quote"]})


def ioi_practice_texts() -> Iterator[str]:
    """Yield the texts of `practice_texts` for `ioi` only, as complete sentences."""
    return (f"{text}." for text in _answered({"ioi": ioi}))


def _answered(tasks: Mapping[str, Callable[[Random], Pair]]) -> Iterator[str]:
    measured = {
        prompt
        for name, make in tasks.items()
        for pair in draw_pairs(make, f"{name} 0", N_PAIRS)
        for prompt in pair.prompts
    }
    sources = [(make, Random(f"{name} training text")) for name, make in tasks.items()]
    for turn in count():
        make, rng = sources[turn % len(sources)]
        pair = make(rng)
        for prompt, answer in zip(pair.prompts, pair.answers, strict=True):
            if prompt not in measured:
                yield prompt + answer
