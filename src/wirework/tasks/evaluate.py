"""Performance of a model on a task: task loss, accuracy, logit difference, KL divergence.

Shapes: N prompts (two per pair), V vocabulary.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.renamed_names import old_arguments
from wirework.summaries import Report
from wirework.tasks.built_in import BUILT_IN_TASKS, PYTHON_TASKS
from wirework.tasks.load import load_task
from wirework.tasks.task import Task, TokenizedPairs, tokenizer_of
from wirework.tasks.task_loss import task_loss

if TYPE_CHECKING:
    from wirework.model import Model

MIN_ACCURACY = 0.75
"""Accuracy, midway between chance and 1, below which a warning is given."""
_ACCURACY_PAIRS = 256
"""Pairs that give an accuracy to within a few percent."""
_PAIRS_PER_PASS = (
    64  # pairs per pass: 128 prompts of 60 tokens are far smaller than a training batch
)


def logit_difference(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the logit difference: logit of the right minus that of the wrong answer.

    Args:
        logits: (N, V) at each prompt's last token.
        answers: (N, 2) int64, right then wrong.

    Returns:
        (N,), dtype of `logits`.
    """
    right_and_wrong = logits.gather(1, answers)
    return right_and_wrong[:, 0] - right_and_wrong[:, 1]


def kl_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """Return KL(reference || other) in nats of two next-token distributions.

    Args:
        reference: (..., N, V) logits.
        logits: (..., N, V); leading dimensions broadcast.

    Returns:
        (..., N) float64: in float32 the divergence of like distributions is lost in rounding.
    """
    odds, others = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    return (odds.exp() * (odds - others)).sum(-1)


@old_arguments(rows="batch")
@torch.no_grad()
def differences(transformer: Transformer, batch: TokenizedPairs) -> Tensor:
    """Return the logit difference of every prompt of a batch, (2P,), in bounded memory."""
    return torch.cat(
        [logit_difference(logits, part.answers) for logits, part in _run(transformer, batch)]
    )


def _run(
    transformer: Transformer, batch: TokenizedPairs
) -> Iterator[tuple[Tensor, TokenizedPairs]]:
    """Yield (logits at the last tokens (N, V), pairs) for successive groups of pairs."""
    for first in range(0, batch.n_pairs, _PAIRS_PER_PASS):
        part = batch.select(torch.arange(first, min(first + _PAIRS_PER_PASS, batch.n_pairs)))
        yield transformer(part.tokens, part.last_positions), part


@dataclass(frozen=True, repr=False)
class TaskReport(Report):
    """Performance of a model on a task. If `valid` is false, `reason` says why; no numbers then."""

    name: str
    valid: bool
    reason: str
    n_pairs: int
    n_skipped: int
    """Pairs of a built-in task that do not fit the model's tokeniser."""
    answers: tuple[tuple[str, int], ...]
    """Text and token id of each answer."""
    loss: float | None
    """Nats; chance is 0.693."""
    accuracy: float | None
    """Share of prompts whose right answer is more likely than the wrong one."""
    logit_difference: float | None
    """Mean logit difference (right minus wrong)."""
    kl: float | None
    """Mean KL divergence in nats between the next-token distributions after the two prompts of a
    pair: how strongly the model reacts to their difference."""


@unchanged_weights()
def evaluate(model: "Model | str | Path", task: Task | str | Path) -> TaskReport:
    """Measure a model on all pairs of a task that fit its tokeniser.

    A task that does not fit the model gives an invalid report with the reason.

    Args:
        model: a model with a tokeniser; a path is loaded.
        task: a task, or what `load_task` takes.
    """
    from wirework.model import load

    model, task = load(model), load_task(task)
    try:
        tokenizer = tokenizer_of(model)
        fitted = task.fitted(tokenizer, model.config.n_ctx)
        batch = fitted.encode(tokenizer, model.config.n_ctx)
    except InputError as error:
        return TaskReport(task.name, False, str(error), 0, len(task.pairs), (), *[None] * 4)
    logit_diff, kl = _logit_diffs_and_kl(
        model.transformer, batch.to(model.transformer.embed.weight.device)
    )
    return TaskReport(
        name=task.name,
        valid=True,
        reason="",
        n_pairs=batch.n_pairs,
        n_skipped=len(task.pairs) - batch.n_pairs,
        answers=_answer_tokens(fitted, batch),
        loss=float(task_loss(logit_diff)),
        accuracy=float((logit_diff > 0).double().mean()),
        logit_difference=float(logit_diff.mean()),
        kl=float(kl.mean()),
    )


def task_accuracy(model: "Model | str | Path", task: Task | str | Path) -> TaskReport:
    """Return `evaluate` on the first 256 pairs of a task."""
    task = load_task(task)
    return evaluate(model, task.take(task.pairs[:_ACCURACY_PAIRS]))


def accuracy_warning(task: str, accuracy: float | None) -> str | None:
    """Return a warning if the model hardly performs the task, so that a circuit means little.

    Args:
        task: name of the task.
        accuracy: accuracy over all prompts; an answer independent of the prompt gives 0.5.
    """
    if accuracy is None or accuracy >= MIN_ACCURACY:
        return None
    right = f"the model gets {task} right {accuracy:.0%} of the time (chance: 50%)"
    return f"{right}: its edges say little"


@torch.no_grad()
def _logit_diffs_and_kl(transformer: Transformer, batch: TokenizedPairs) -> tuple[Tensor, Tensor]:
    """Return the logit difference of every prompt (2P,) and the KL divergence per pair (P,)."""
    parts = [
        (logit_difference(logits, part.answers), kl_divergence(logits[::2], logits[1::2]))
        for logits, part in _run(transformer, batch)
    ]
    logit_diffs, divergences = zip(*parts, strict=True)
    return torch.cat(logit_diffs), torch.cat(divergences)


def tasks_for(model: "Model | str | Path") -> tuple[str, ...]:
    """Return the names of the twenty Python tasks and of the other tasks that fit the model.

    Args:
        model: a model with a tokeniser; a path is loaded.
    """
    from wirework.model import load

    model = load(model)
    others = [name for name in BUILT_IN_TASKS if name not in PYTHON_TASKS]
    return (*PYTHON_TASKS, *(name for name in others if _fits(model, load_task(name))))


def _fits(model: "Model", task: Task) -> bool:
    try:
        task.fitted(tokenizer_of(model), model.config.n_ctx)
    except InputError:
        return False
    return True


def task_reports(
    model: "Model | str | Path", names: Iterable[str | Any] | None = None, *, n: int = 256
) -> list[TaskReport]:
    """Measure a model on tasks and return a report for each, in the order of the names.

    Args:
        model: with a tokeniser; a path is loaded.
        names: built-in names or paths; None for those of `tasks_for`.
        n: pairs of each built-in task; of a file, all pairs are used.
    """
    from wirework.model import load

    model = load(model)
    names = tasks_for(model) if names is None else names
    tasks = (load_task(name, n=n if name in BUILT_IN_TASKS else None) for name in names)
    return [evaluate(model, task) for task in tasks]


def all_reports(
    model: "Model | str | Path", names: Iterable[str | Any] | None = None, *, n: int = 256
) -> list[dict[str, Any]]:
    """Return `task_reports` as dicts."""
    return [asdict(report) for report in task_reports(model, names, n=n)]


def _answer_tokens(task: Task, batch: TokenizedPairs) -> tuple[tuple[str, int], ...]:
    """Return each distinct answer with its token."""
    answer_tokens: dict[tuple[str, int], None] = {}
    for pair, (right, _), (other_right, _) in zip(
        task.pairs, batch.answers[::2].tolist(), batch.answers[1::2].tolist(), strict=True
    ):
        answer_tokens |= {(pair.answers[0], right): None, (pair.answers[1], other_right): None}
    return tuple(answer_tokens)
