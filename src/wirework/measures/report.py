"""The report of `measure`: the numbers of each instrument, and the headline of the table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from wirework.config import Instrument, PathCorruption
from wirework.measures.explain import ExplainReport
from wirework.measures.language import Language
from wirework.measures.sae import SaeQuality
from wirework.measures.sparsity import Sparsity
from wirework.summaries import NotMeasured, Report, absent


def _column(*path: str) -> Any:
    """Return a field of `Headline`, which is read at a path of keys in a report."""
    return field(default=None, metadata={"path": path})


@dataclass(frozen=True, repr=False)
class Headline(Report):
    """The numbers of the table; None if a report has no such number, or it is not finite."""

    perplexity: float | None = _column("language", "perplexity")
    path_edges: float | None = _column("acdc", "n_path_edges")
    task_accuracy: float | None = _column("acdc", "skill", "accuracy")
    sae_l0: float | None = _column("sae", "sae_l0")
    ce_score: float | None = _column("sae", "ce_score")
    explanation_score: float | None = _column("explain", "scores", "top_and_random", "mean")
    mean_abs_weight: float | None = _column("sparsity", "mean_abs_weight")
    mean_abs_weight_embedded: float | None = _column("sparsity", "mean_abs_weight_embedded")
    weight_l0: float | None = _column("sparsity", "weight_l0")
    gate_live_fraction: float | None = _column("sparsity", "gates", "live_fraction")
    dead_units: float | None = _column("sparsity", "gates", "dead_units")
    log_kurtosis: float | None = _column("sparsity", "log_kurtosis")


COLUMNS: dict[str, tuple[str, ...]] = {
    column.name: column.metadata["path"] for column in fields(Headline)
}
"""Names of the headline numbers, and the path of keys at which a report holds each."""


@dataclass(frozen=True, repr=False)
class TaskSkill(Report):
    """The whole model's performance on a task; None if the task does not fit the model."""

    accuracy: float | None
    """Share of prompts whose right answer is the likelier one; chance is 0.5."""
    loss: float | None
    """Task loss in nats; chance is 0.693."""
    logit_difference: float | None
    """Mean logit of the right answer minus that of the wrong one."""


@dataclass(frozen=True, repr=False)
class AcdcMeasures(Report):
    """Size of a model's ACDC circuit on a task, with the metrics of the patched run."""

    task: str
    skill: TaskSkill
    """The whole model on the task: a circuit says little if the model cannot do it."""
    tau: float
    """Threshold of ACDC."""
    n_pairs: int
    n_path_edges: int
    """Path edges that ACDC keeps."""
    n_all: int = field(metadata={"key": "of"})
    """All path edges of the model."""
    n_unreachable: int
    """Path edges of the model from which no kept edge leads to the output."""
    kl: float
    """KL divergence of the patched run from the model, nats."""
    logit_difference: float
    """Mean logit difference of the patched run."""
    accuracy: float
    """Accuracy of the patched run."""
    task_loss: float
    """Task loss of the patched run, nats."""
    model_logit_difference: float
    model_accuracy: float
    corruption: PathCorruption | None = None
    """Corrupted prompt of each clean one; None in reports of earlier versions, which used the other
    prompt of the pair."""


@dataclass(frozen=True, repr=False)
class MeasureReport(Report):
    """The numbers of every instrument that was asked for.

    An instrument that does not fit the model is `NotMeasured` with the reason. One that was not
    asked for is None.
    """

    headline: Headline
    language: Language | NotMeasured | None = absent()
    sparsity: Sparsity | NotMeasured | None = absent()
    acdc: AcdcMeasures | NotMeasured | None = absent()
    sae: SaeQuality | NotMeasured | None = absent()
    explain: ExplainReport | NotMeasured | None = absent()

    @classmethod
    def of(cls, entries: Mapping[Instrument, Report]) -> "MeasureReport":
        """Return the report of entries by instrument."""
        named: dict[str, Any] = dict(entries.items())
        return cls(headline(named), **named)

    def summary(self) -> dict[str, Any]:
        """Return the headline numbers, and the reason of each instrument that has none."""
        numbers = self.headline.to_dict().items()
        missing = {f"no {name}": reason for name, reason in reasons(self).items()}
        return {**{name: value for name, value in numbers if value is not None}, **missing}


def reasons(report: Mapping[str, Any]) -> dict[Instrument, str]:
    """Return the reason of each instrument that was asked for but has no numbers.

    Args:
        report: a `MeasureReport`, or its JSON.
    """
    entries = {name: report.get(name, {}) for name in get_args(Instrument)}
    return {name: entry["reason"] for name, entry in entries.items() if "reason" in entry}


def headline(report: Mapping[str, Any]) -> Headline:
    """Return the headline numbers of a report.

    Args:
        report: a `MeasureReport`, or its JSON.
    """
    return Headline(**{name: _number_at(report, path) for name, path in COLUMNS.items()})


def _number_at(values: Any, path: Sequence[str]) -> float | None:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, int | float) and math.isfinite(values) else None
