"""Shortcuts of a task: what length, number of lines or last token of a prompt tell of its answer.

A task whose answer a linear probe reads from the length of the prompt does not need the behaviour
that it is named after. A task whose answer follows from the last token is a bigram task.

Shapes: N prompts (two per pair), F features.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.summaries import Report
from wirework.tasks.built_in import PYTHON_TASKS
from wirework.tasks.load import load_task
from wirework.tasks.task import Task, tokenizer_of

if TYPE_CHECKING:
    from wirework.model import Model

CHANCE = 0.5
SUSPICIOUS = 0.6
"""Held-out accuracy of a probe above which a task counts as having a shortcut."""
_RIDGE = 1e-3
_TOKEN = re.compile(r"\n[ \t]*|\w+|[^\w\s]+")
"""Words, runs of signs and line breaks: about the tokens of our tokenisers."""


@dataclass(frozen=True, repr=False)
class Shortcuts(Report):
    """Held-out accuracies of linear probes on the prompts of a task; 0.5 is chance."""

    task: str
    n_pairs: int
    length: float
    """Probe on the number of tokens of the prompt."""
    lines: float
    """Probe on the number of lines of the prompt."""
    last_token: float
    """Probe on the last token of the prompt (one-hot)."""
    longer_first: float | None
    """Share of pairs of unequal prompts whose longer prompt is the first; None: all are equal."""

    @property
    def suspicious(self) -> bool:
        """Whether a probe tells the answer in more than 60% of held-out prompts."""
        return max(self.length, self.lines, self.last_token) > SUSPICIOUS

    def summary(self) -> dict[str, Any]:
        """Return the accuracies by name."""
        names = ("length", "lines", "last_token", "longer_first")
        return {name: getattr(self, name) for name in names}


def shortcuts(task: Task | str | Path, model: "Model | None" = None) -> Shortcuts:
    """Fit linear probes on half of the pairs of a task and measure them on the other half.

    Args:
        task: a task, or what `load_task` takes.
        model: model with the tokeniser that counts; None: words, signs and line breaks count.

    Raises:
        InputError: the task has fewer than two pairs or does not fit the model, or the model has no
            tokeniser.
    """
    task = load_task(task)
    if model is not None:
        tokenizer = tokenizer_of(model)
        task = task.fitted(tokenizer, model.config.n_ctx)
        prompts: list[list[Any]] = [
            [*tokenizer.encode(prompt)] for pair in task.pairs for prompt in pair.prompts
        ]
    else:
        # A prompt of spaces alone has no token: it counts as one.
        prompts = [_TOKEN.findall(p) or [p] for pair in task.pairs for p in pair.prompts]
    lengths = torch.tensor([float(len(prompt)) for prompt in prompts])
    train = torch.tensor(_in_first_half(task))
    unequal = lengths.view(-1, 2)[lengths[::2] != lengths[1::2]]
    return Shortcuts(
        task=task.name,
        n_pairs=len(task.pairs),
        length=_probe_accuracy(lengths[:, None], train),
        lines=_probe_accuracy(_n_lines(task)[:, None], train),
        last_token=_probe_accuracy(_one_hot([prompt[-1] for prompt in prompts]), train),
        longer_first=None
        if not len(unequal)
        else float((unequal[:, 0] > unequal[:, 1]).double().mean()),
    )


def all_shortcuts(
    tasks: Iterable[Task | str | Path] | None = None, model: "Model | None" = None
) -> tuple[Shortcuts, ...]:
    """Return the shortcuts of several tasks; None: of the twenty Python tasks."""
    return tuple(shortcuts(task, model) for task in (PYTHON_TASKS if tasks is None else tasks))


def _in_first_half(task: Task) -> list[bool]:
    """Return, per prompt, whether its pair is in the half that probes are fitted on."""
    first, _ = task.split(0)
    chosen = {pair.content for pair in first.pairs}
    return [pair.content in chosen for pair in task.pairs for _ in pair.prompts]


def _n_lines(task: Task) -> Tensor:
    """Return (N,), the number of lines of each prompt."""
    return torch.tensor([float(p.count("\n")) for pair in task.pairs for p in pair.prompts])


def _one_hot(values: list[Any]) -> Tensor:
    """Return (N, F) indicators of F distinct values."""
    columns = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return torch.eye(len(columns))[torch.tensor([columns[value] for value in values])]


def _probe_accuracy(features: Tensor, train: Tensor) -> float:
    """Return the held-out accuracy of a ridge regression that tells first from second prompts.

    Args:
        features: (N, F).
        train: (N,) bool, prompts that the probe is fitted on.
    """
    labels = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(features) // 2)
    inputs = torch.cat([features.double(), torch.ones(len(features), 1)], 1)
    fitted = inputs[train]
    gram = fitted.T @ fitted + _RIDGE * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, fitted.T @ labels[train])
    scores = inputs[~train] @ weights
    right = (scores * labels[~train] > 0).double() + 0.5 * (scores.abs() < 1e-9).double()
    return float(right.mean())
