"""Run folders: locking, stored settings, and the finished run."""

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

CHANGEABLE_SETTINGS = (
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
"""Settings that a resume may change, since no weight depends on them. The tokeniser's path is one
of them because its content is compared by fingerprint."""

MOVABLE_SETTINGS = ("bridges.dense", "start_from")
"""Models that a resume may find at another path: the content of `bridges.dense` is compared by
fingerprint, and that of `start_from` is read before the first checkpoint only. Beginning or ceasing
to name one is a change."""

DECIDED_AT_START = {
    "device": "auto",
    "precision": "auto",
    "data.vocab_size": "auto",
    "model.vocab_size": 0,
}
"""Settings that are decided when the run starts, if they have this value."""


@dataclass
class Run:
    """A finished run."""

    path: Path
    """Folder of the run."""
    model: Model
    """The trained model, on the CPU."""
    metrics: dict[str, Any]
    """`val_loss` (nats), `nonzero_fraction` (of matrices and biases), `negligible_fraction` (share
    of these nonzero weights that are below a millionth of the largest of their tensor),
    `log_kurtosis`, `kurtosis` (pooled), `dead_neurons`, `dead_neurons_by_layer`, `step`, `tokens`
    (trained on), `seconds`."""

    def history(self) -> list[dict[str, Any]]:
        """Return all lines of `metrics.jsonl`.

        Raises:
            InputError: the log is missing or damaged.
        """
        return read_metrics(self.path / "metrics.jsonl")

    def plot(self) -> "Picture":
        """Draw the losses against the steps.

        Returns:
            A matplotlib figure; a notebook shows it, `savefig` writes it.

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
def locked_run_folder(config: TrainConfig, resume: bool) -> Iterator[Path]:
    """Lock the run folder inside a `with` block, and remove what a killed process left in it.

    Raises:
        InputError: the run exists and `resume` is not set, the folder holds something other than a
            run, another process trains there, or the folder cannot be written.
    """
    folder = config.runs / config.name
    if not resume and _entries(folder):
        raise InputError(f"{folder} exists: use --resume to continue it, or choose another name")
    if _entries(folder) and not files.is_file(folder / "config.yaml"):
        raise InputError(f"{folder} is not a run: it holds files but no config.yaml")
    with files.locked(folder / "lock", f"run {folder}"):
        clear_held([folder, folder / "checkpoints"])
        yield folder


def write_settings(folder: Path, config: TrainConfig) -> None:
    """Write `config.yaml`, with a checksum as a comment in its last line."""
    text = config.to_yaml()
    files.write_text(folder / "config.yaml", f"{text}{_CHECKSUM_COMMENT}{_digest(text)}\n")


def read_settings(folder: Path) -> TrainConfig:
    """Return the settings with which a run began.

    Raises:
        InputError: there is no `config.yaml`, or it was changed after the run began.
    """
    if changed := edited_settings(folder):
        raise InputError(
            f"{folder / 'config.yaml'} was changed after the run began, {'; '.join(changed)}: "
            "undo the changes"
        )
    return TrainConfig.load(folder / "config.yaml")


def edited_settings(folder: Path) -> list[str]:
    """Return `name: old -> new` for each edited setting of `config.yaml` that affects weights.

    Raises:
        InputError: the file was edited and there is no checkpoint to compare it with.
    """
    path = folder / "config.yaml"
    text, comment, digest = (
        files.read_bytes(path).decode(errors="replace").rpartition(_CHECKSUM_COMMENT)
    )
    is_older_version = not comment and not files.is_file(
        folder / files.CHECKSUMS
    )  # older versions wrote no checksums
    if is_older_version or (comment and digest.strip() == _digest(text)):
        return []
    state = newest_state(folder / "checkpoints")
    if state is None:
        raise DamagedError(
            f"{path} was changed after the run began, and there is no checkpoint to compare it "
            "with: undo the change, or choose another name"
        )
    return settings_differences(
        TrainConfig.of(state.settings, "the checkpoint"), TrainConfig.load(path)
    )


_CHECKSUM_COMMENT = "# sha256 of the lines above: "


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def settings_to_use(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the settings to train with: those given, resolved as stored if the run has begun.

    Raises:
        InputError: settings that affect weights differ; the message lists them (name: old -> new).
    """
    stored = folder / "config.yaml"
    if not files.is_file(stored):
        return config
    refuse_differences(folder, edited_settings(folder))
    return resumed_settings(config, TrainConfig.load(stored), folder)


def resumed_settings(config: TrainConfig, old: TrainConfig, folder: Path) -> TrainConfig:
    """Return the settings with which to resume a run that began with `old`.

    Raises:
        InputError: settings that affect weights differ; the message lists them (name: old -> new).
    """
    refuse_differences(folder, settings_differences(old, config))
    data, model = (
        getattr(config, part).model_copy(update={"vocab_size": getattr(old, part).vocab_size})
        for part in ("data", "model")
    )
    stored = {"device": old.device, "precision": old.precision, "data": data, "model": model}
    return config.model_copy(update=stored)


def settings_differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Return `name: old -> new` for each setting that differs and affects weights."""
    before, after = (config.model_dump(mode="json") for config in (old, new))
    return [
        str(change)
        for change in changes(before, after)
        if change.name not in CHANGEABLE_SETTINGS
        and not (change.name in MOVABLE_SETTINGS and None not in (change.before, change.after))
        and not (change.name in DECIDED_AT_START and change.after == DECIDED_AT_START[change.name])
    ]


def refuse_differences(folder: Path, listed: list[str]) -> None:
    """Raise an InputError with the listed differences, if there are any."""
    if listed:
        raise InputError(
            f"{folder} cannot be resumed with changed settings: {'; '.join(listed)}. "
            "Undo the changes, or choose another name"
        )


def finished_run(folder: Path) -> Run | None:
    """Return the run if its training is finished, else None.

    Raises:
        InputError: a file cannot be read, or a log line that a resume would keep is damaged.
    """
    log = folder / "metrics.jsonl"
    if not files.is_file(log) or "model" not in files.entries(folder):
        return None
    try:
        lines = read_metrics(log)
    except DamagedError as error:
        state = newest_state(folder / "checkpoints")
        checked_log(log, 0 if state is None else state.metrics_bytes)
        warn(f"{error}; continuing without the lines after the newest checkpoint")
        return None
    if not lines or lines[-1].get("kind") != "final":
        return None
    return Run(folder, load(folder / "model"), final_metrics(lines[-1]))


def final_metrics(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of the log's last line, those of `timing` included."""
    values = {name: value for name, value in line.items() if name not in ("kind", "timing")}
    return {**values, **line["timing"]}


def _entries(folder: Path) -> list[str]:
    """Return the names in a folder, without the lock and unfinished files."""
    no_content = ("lock", TEXT_RECORD)  # the record may be written before the run
    return [name for name in files.entries(folder) if name not in no_content and name[0] != "."]
