"""Built-in tasks as training text, for a model too small to learn them from other text alone."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from random import Random

from wirework.tasks.built_in import BUILT_IN
from wirework.tasks.ioi import ioi
from wirework.tasks.load import N_PAIRS, draw_pairs
from wirework.tasks.task import Pair


def practice_texts() -> Iterator[str]:
    """Yield prompts with their right answers, task by task in turn, without end.

    No prompt of the 1,024 pairs that a task has by default is among them, so that these measure
    what the model made of the others. Each text ends with its answer, which is tokenised as
    in the task.
    """
    return _answered(BUILT_IN)


def quote_practice_texts() -> Iterator[str]:
    """Yield what `practice_texts` does for `single_double_quote` alone."""
    return _answered({"single_double_quote": BUILT_IN["single_double_quote"]})


def ioi_practice_texts() -> Iterator[str]:
    """Yield what `practice_texts` does for `ioi` alone, as whole sentences."""
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
