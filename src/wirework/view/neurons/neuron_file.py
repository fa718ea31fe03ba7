"""Read what `wirework explain` wrote, and check it (docs/explain.md, Files)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from wirework.circuit_format import Index, Part, Text
from wirework.errors import InputError
from wirework.files import read_record
from wirework.view.checked_file import read_checked


class Excerpt(Part):
    """A window of text, what the neuron did there and what its explanation predicts."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    simulated: tuple[float, ...] | None = None
    """0 to 10, where 10 is the neuron's peak; None where nothing was to be predicted."""
    detected: float | None = None

    @model_validator(mode="after")
    def _even(self) -> Self:
        for values in (self.activations, self.simulated):
            if values is not None and len(values) != len(self.tokens):
                raise ValueError(f"{len(self.tokens)} tokens, but {len(values)} values")
        return self


class Correlation(Part):
    """How well the predictions follow the neuron; None where it does the same everywhere."""

    top_and_random: float | None
    top: float | None
    random: float | None


class Detection(Part):
    """How well the explanation tells excerpts where the neuron is active."""

    balanced_accuracy: float | None
    auroc: float | None


class Scores(Part):
    """Of one explanation."""

    correlation: Correlation
    constant: bool = False
    detection: Detection | None = None


class NeuronFile(Part):
    """One neuron: of a dead one there is no more than its place."""

    format: Literal["wirework-neuron"]
    version: Literal[1, 2]
    site: Text
    index: Index
    peak: float
    live_fraction: float
    dead: bool
    explanation: str = ""
    scores: Scores | None = None
    top: tuple[Excerpt, ...] = ()
    held_out_top: tuple[Excerpt, ...] = ()
    held_out_random: tuple[Excerpt, ...] = ()

    @property
    def score(self) -> float | None:
        """The correlation over top and random excerpts."""
        return None if self.scores is None else self.scores.correlation.top_and_random


class Failure(Part):
    """A neuron that was tried and has no explanation."""

    neuron: str
    reason: str


class Rest(Part):
    """What `explain.json` says of the neurons that have no file."""

    stopped: str | None = None
    """Why it ended early."""
    left: Index | None = None
    """Neurons that it did not come to; None: an older file does not say."""
    failures: tuple[Failure, ...]


def read_rest(folder: Path) -> Rest | None:
    """Read what became of neurons without a file; None where the run was killed.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "explain.json"
    return read_checked(path, Rest) if _is_there(path) else None


def read_neurons(folder: Path) -> list[NeuronFile]:
    """Read all neurons of a folder, the best explained first.

    Raises:
        InputError: there is none and no run has ended, or a file is damaged or of another version.
    """
    paths = sorted((folder / "neurons").glob("*.json"))
    if not paths and not _is_there(folder / "explain.json"):
        raise InputError(f"no neurons at {folder}: expected a folder that `wirework explain` wrote")
    found = [read_checked(path, NeuronFile) for path in paths]
    return sorted(found, key=lambda one: 2.0 if one.score is None else -one.score)


def read_model_name(folder: Path) -> str | None:
    """Return the path of the model whose neurons were explained; None where no file says it.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "settings.json"
    name = read_record(path).get("path") if _is_there(path) else None
    return name if isinstance(name, str) else None


def _is_there(path: Path) -> bool:
    """Whether there is anything at all, so that what is no file is told of when it is read."""
    return path.exists() or path.is_symlink()
