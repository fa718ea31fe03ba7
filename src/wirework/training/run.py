"""A run folder: who may use it, what it was made with, what came of it."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework import files
from wirework.config import TrainConfig, changes
from wirework.console import warn
from wirework.data.run_text import TEXT_RECORD
from wirework.errors import DamagedError, InputError
from wirework.leftovers import clear_held
from wirework.model import Model, load
from wirework.summaries import short, shown_as
from wirework.training.checkpoint import newest_state
from wirework.training.metrics import checked_log, read_metrics

if TYPE_CHECKING:
    from wirework.picture import Picture

HARMLESS = (
    "runs",
    "track",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "keep_checkpoints",
    "data.workers",
    "data.cache",
    "data.tokenizer",
)
"""Settings that a resume may change: none reaches a weight. The tokeniser's path is one, since its
content is compared by fingerprint."""

RESOLVED = {
    "device": "auto",
    "precision": "auto",
    "data.vocab_size": "auto",
    "model.vocab_size": 0,
}
"""Settings that are settled when the run starts, for the rest of it, where they have this value."""


@dataclass
class Run:
    """A finished run."""

    path: Path
    """Its folder."""
    model: Model
    """The trained model, on the CPU."""
    metrics: dict[str, Any]
    """`val_loss` (nats), `nonzero_fraction` (of matrices and biases), `kurtosis`, `dead_neurons`,
    `dead_neurons_by_layer`, `step`, `tokens` seen, `seconds`."""

    def history(self) -> list[dict[str, Any]]:
        """Return every line of `metrics.jsonl`."""
        return read_metrics(self.path / "metrics.jsonl")

    def plot(self) -> "Picture":
        """Draw the losses against the steps; a notebook shows it, `savefig` writes it.

        Returns:
            A matplotlib figure.

        Raises:
            InputError: the log is missing or damaged.
        """
        from wirework.training.loss_curve import draw_losses

        return draw_losses(self.history(), self.path.name)

    def __repr__(self) -> str:
        numbers = ("step", "tokens", "val_loss", "nonzero_fraction", "seconds")
        held = (f"{n} {short(self.metrics[n])}" for n in numbers if n in self.metrics)
        return shown_as("Run", str(self.path), ", ".join(held))


@contextmanager
def claimed(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """Hold the run's folder for the block, alone, and clear what a killed process left in it.

    Raises:
        InputError: the run exists and `resume` is not set, the folder holds something that is no
            run, another process trains there, or the place cannot be written to.
    """
    folder = config.runs / config.name
    if not resume and _entries(folder):
        raise InputError(f"{folder} exists: --resume to continue it, or choose another name")
    if _entries(folder) and not files.is_file(folder / "config.yaml"):
        raise InputError(f"{folder} is not a run: it holds files but no config.yaml")
    with files.locked(folder / "lock", f"run {folder}"):
        clear_held([folder, folder / "checkpoints"])
        yield folder


def write_settings(folder: Path, config: TrainConfig) -> None:
    """Write `config.yaml`, with a checksum as a comment in its last line."""
    text = config.to_yaml()
    files.write_text(folder / "config.yaml", f"{text}{_SEAL}{_digest(text)}\n")


def read_settings(folder: Path) -> TrainConfig:
    """Return the settings that a run began with.

    Raises:
        InputError: there is no `config.yaml`, or it says something else than what the run began
            with.
    """
    if found := edits(folder):
        raise InputError(
            f"{folder / 'config.yaml'} was changed after the run began, {'; '.join(found)}: "
            "undo that"
        )
    return TrainConfig.load(folder / "config.yaml")


def edits(folder: Path) -> list[str]:
    """Return `name: old -> new` for each setting of `config.yaml` that was edited and matters.

    Raises:
        InputError: the file was edited and there is no checkpoint to compare it with.
    """
    path = folder / "config.yaml"
    text, seal, digest = files.read_bytes(path).decode(errors="replace").rpartition(_SEAL)
    older = not seal and not files.is_file(folder / files.CHECKSUMS)  # it wrote no checksums at all
    if older or (seal and digest.strip() == _digest(text)):
        return []
    state = newest_state(folder / "checkpoints")
    if state is None:
        raise DamagedError(
            f"{path} was changed after the run began, and there is no checkpoint to compare it "
            "with: undo the change, or choose another name"
        )
    return differences(TrainConfig.of(state.settings, "the checkpoint"), TrainConfig.load(path))


_SEAL = "# sha256 of the lines above: "


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def settle(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the settings to train with: the stored ones where the run has begun.

    Raises:
        InputError: lists the settings (name: old -> new) that differ and matter.
    """
    stored = folder / "config.yaml"
    if not files.is_file(stored):
        return config
    refuse_differences(folder, edits(folder))
    return as_begun(config, TrainConfig.load(stored), folder)


def as_begun(config: TrainConfig, old: TrainConfig, folder: Path) -> TrainConfig:
    """Return the settings to go on with in a run that began with `old`.

    Raises:
        InputError: lists the settings (name: old -> new) that differ and matter.
    """
    refuse_differences(folder, differences(old, config))
    data, model = (
        getattr(config, part).model_copy(update={"vocab_size": getattr(old, part).vocab_size})
        for part in ("data", "model")
    )
    settled = {"device": old.device, "precision": old.precision, "data": data, "model": model}
    return config.model_copy(update=settled)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return `name: old -> new` for each setting that differs and changes what is trained."""
    before, after = (config.model_dump(mode="json") for config in (old, new))
    return [
        str(change)
        for change in changes(before, after)
        if change.name not in HARMLESS
        and not (change.name in RESOLVED and change.after == RESOLVED[change.name])
    ]


def refuse_differences(folder: Path, found: list[str]) -> None:
    """Raise an InputError that lists the differences, if there are any."""
    if found:
        raise InputError(
            f"{folder} cannot be resumed under changes: {'; '.join(found)}. "
            "Undo them, or choose another name"
        )


def finished(folder: Path) -> Run | None:
    """Return the run if it has been trained to its end, else None.

    Raises:
        InputError: a file cannot be read, or a line of the log is damaged that a resume would keep.
    """
    log = folder / "metrics.jsonl"
    if not files.is_file(log) or "model" not in files.entries(folder):
        return None
    try:
        lines = read_metrics(log)
    except DamagedError as error:
        state = newest_state(folder / "checkpoints")
        checked_log(log, 0 if state is None else state.metrics_bytes)
        warn(f"{error}; going on without the lines that came after the newest checkpoint")
        return None
    if not lines or lines[-1].get("kind") != "final":
        return None
    return Run(folder, load(folder / "model"), final_metrics(lines[-1]))


def final_metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of the log's last line, flat."""
    values = {name: value for name, value in line.items() if name not in ("kind", "timing")}
    return {**values, **line["timing"]}


def _entries(folder: Path) -> list[str]:
    """Return what is in a folder besides the lock and leftovers."""
    no_content = ("lock", TEXT_RECORD)  # the record may come before the run
    return [name for name in files.entries(folder) if name not in no_content and name[0] != "."]
