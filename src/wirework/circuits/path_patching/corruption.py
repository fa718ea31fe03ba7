"""The corrupted prompt of each clean prompt: the pair's other prompt, or one with new names."""

from functools import cache
from typing import TYPE_CHECKING

from wirework.config import AcdcConfig, PathCorruption
from wirework.errors import InputError, quoted
from wirework.tasks import Pair, Task
from wirework.tasks.built_in import NEW_NAMES

if TYPE_CHECKING:
    from wirework.data import Tokenizer


def corruption_of(task: Task, config: AcdcConfig) -> PathCorruption:
    """Return the corruption that a search on a task uses, which is never None.

    Raises:
        InputError: the settings ask for new names, and the task has none.
    """
    has_new_names = task.generated and task.path is None and task.name in NEW_NAMES
    if config.corruption == "new_names" and not has_new_names:
        raise InputError(
            f"corruption new_names is for the built-in task {', '.join(NEW_NAMES)}, not for "
            f"{quoted(task.name)}: use other_prompt"
        )
    if config.corruption is not None:
        return config.corruption
    return "new_names" if has_new_names and not config.symmetric else "other_prompt"


def corrupted(task: Task, corruption: PathCorruption, tokenizer: "Tokenizer") -> Task:
    """Return a task with the corrupted prompt as the second of each pair.

    With new names the second prompt has no right answer. The answers stay those of the clean
    prompt, and only a `Contrast` that is not symmetric may be made of the pairs.

    Args:
        task: a task that fits the tokeniser.
        corruption: the corruption that `corruption_of` gave for the task.
        tokenizer: new names are drawn from those that it makes one token.

    Raises:
        InputError: too few names are one token.
    """
    if corruption == "other_prompt":
        return task
    new_names = NEW_NAMES[task.name]

    @cache
    def is_one_token(name: str) -> bool:
        return len(tokenizer.encode(f" {name}")) == 1

    return task.take(
        [
            Pair((pair.prompts[0], new_names(pair, is_one_token)), pair.answers, pair.template)
            for pair in task.pairs
        ]
    )
