"""Read and check the folder that `wirework explain` wrote (docs/explain.md, Files)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from wirework.circuit_format import Index, Part, Text
from wirework.errors import InputError
from wirework.files import read_record
from wirework.node_names import neuron_name
from wirework.view.checked_file import read_checked


class ExcerptPart(Part):
    """A window of text with the neuron's activations and those that its explanation predicts."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    simulated: tuple[float, ...] | None = None
    """Predicted activations, 0 to 10 (the neuron's peak); None where none were predicted."""
    detected: float | None = None

    @model_validator(mode="after")
    def _even(self) -> Self:
        for values in (self.activations, self.simulated):
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(f"{len(self.tokens)} tokens, but {len(values)} values")
        return self


class Correlation(Part):
    """Correlation of predicted with true activations; None where one of them is constant."""

    top_and_random: float | None
    top: float | None
    random: float | None


class Detection(Part):
    """How well the explanation separates excerpts in which the neuron is active from others."""

    balanced_accuracy: float | None
    auroc: float | None


class ScoresPart(Part):
    """Scores of one explanation."""

    correlation: Correlation
    constant: bool = False
    detection: Detection | None = None


class NeuronFile(Part):
    """One neuron; a dead one has its site and index only."""

    format: Literal["wirework-neuron"]
    version: Literal[1, 2]
    site: Text
    index: Index
    negated: bool = False
    peak: float
    live_fraction: float
    dead: bool
    explanation: str = ""
    scores: ScoresPart | None = None
    top: tuple[ExcerptPart, ...] = ()
    held_out_top: tuple[ExcerptPart, ...] = ()
    held_out_random: tuple[ExcerptPart, ...] = ()

    @property
    def name(self) -> str:
        """`3.mlp.post_act.17`, or `3.mlp.post_act.17.negated`."""
        return neuron_name(self.site, self.index, self.negated)

    @property
    def score(self) -> float | None:
        """The correlation over top and random excerpts."""
        return None if self.scores is None else self.scores.correlation.top_and_random


class Failure(Part):
    """A neuron whose explanation failed, and why."""

    neuron: str
    reason: str


class RunOutcome(Part):
    """How a run ended, from `explain.json`: why it stopped early and which neurons failed."""

    stopped: str | None = None
    """Why the run stopped early; None where it did not."""
    left: Index | None = None
    """Number of neurons that were not reached; None in older files, which do not say."""
    failures: tuple[Failure, ...]


def read_outcome(folder: Path) -> RunOutcome | None:
    """Read how the run ended; None where it was killed or still runs.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "explain.json"
    return read_checked(path, RunOutcome) if _is_there(path) else None


def read_neurons(folder: Path) -> list[NeuronFile]:
    """Read all neurons of a folder, highest score first.

    Raises:
        InputError: there is neither a neuron nor a finished run, or a file is damaged or of
            another version.
    """
    paths = sorted((folder / "neurons").glob("*.json"))
    if not paths and not _is_there(folder / "explain.json"):
        raise InputError(f"no neurons at {folder}: expected a folder that `wirework explain` wrote")
    neurons = [read_checked(path, NeuronFile) for path in paths]
    return sorted(
        neurons, key=lambda neuron: 2.0 if neuron.score is None else -neuron.score
    )  # scores are correlations, so 2 sorts last


def read_model_name(folder: Path) -> str | None:
    """Read the path of the model whose neurons were explained; None where no file says it.


    Raises:
        InputError: the file is damaged.
    """
    path = folder / "settings.json"
    name = read_record(path).get("path") if _is_there(path) else None
    return name if isinstance(name, str) else None


def _is_there(path: Path) -> bool:
    """Return whether the path exists in any form; reading it reports what is not a file."""

    return path.exists() or path.is_symlink()
