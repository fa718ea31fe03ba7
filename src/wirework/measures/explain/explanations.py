"""Explanations and scores of the neurons of one model, and their averages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wirework.measures.explain.score import MeanScore, averages
from wirework.summaries import Report, html_table, shown_as


@dataclass(frozen=True, repr=False)
class ExplainReport(Report):
    """Counts of neurons, and the mean of each score over live neurons."""

    neurons: int
    explained: int
    """Live neurons with an explanation and scores."""
    dead: int
    """Neurons that are never active in the training text."""
    failed: int
    constant: int
    """Explanations that predict the same activation everywhere; they score 0."""
    undefined: int
    """Neurons with the same activation everywhere in held-out text; they have no score."""
    scores: Mapping[str, MeanScore]
    """`top_and_random` is the explanation score; docs/explain.md has the others."""


@dataclass(frozen=True)
class Explanations:
    """Explanations and scores of the neurons of one model."""

    neurons: tuple[dict[str, Any], ...]
    """The content of the file of each neuron that was explained or is dead."""
    failed: tuple[dict[str, str], ...]
    """`neuron` and `reason` of each neuron that failed."""

    def __repr__(self) -> str:
        about = self.summary()
        counts = (f"{name} {about[name]}" for name in ("neurons", "explained", "dead", "failed"))
        return shown_as("Explanations", ", ".join(counts))

    def _repr_html_(self) -> str:
        return html_table("Explanations", self.summary())

    @property
    def report(self) -> ExplainReport:
        """Counts of neurons, and the mean of each score over live neurons."""
        scores = [neuron["scores"] for neuron in self.neurons if not neuron["dead"]]
        return ExplainReport(
            neurons=len(self.neurons) + len(self.failed),
            explained=len(scores),
            dead=len(self.neurons) - len(scores),
            failed=len(self.failed),
            constant=sum(score["constant"] for score in scores),
            undefined=sum(score["correlation"]["top_and_random"] is None for score in scores),
            scores=averages(scores),
        )

    def summary(self) -> dict[str, Any]:
        """Return `report` as JSON."""
        return self.report.to_dict()
