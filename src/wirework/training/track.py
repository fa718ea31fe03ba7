"""TensorBoard and Weights & Biases, if the settings name them (extra `track`)."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from wirework.config import TrainConfig
from wirework.console import warn
from wirework.errors import InputError, translated_errors
from wirework.files import is_file, read_whole, write_text
from wirework.foreign import no_prompts
from wirework.training.metrics import Tracker

_WANDB_ID_BYTES = 1000


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers are installed, before any work.

    Raises:
        InputError: one is not installed; the message names the extra to install.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(
                f"track: {name} is not installed: pip install '.[track]', or leave it out"
            )


def open_trackers(config: TrainConfig, run: Path, step: int) -> list[Tracker]:
    """Open the trackers that the settings name for a run folder.

    Args:
        config: settings of the run; Weights & Biases gets all of them.
        run: the run folder; trackers write their files below it.
        step: step from which training continues; points after it from before a resume are dropped.

    Raises:
        InputError: one of them cannot be opened.
    """
    return [_SafeTracker(name, _open(name, config, run, step)) for name in config.track]


def _open(name: str, config: TrainConfig, run: Path, step: int) -> Tracker:
    with translated_errors(f"track: {name} cannot be started"):
        return _WandB(config, run) if name == "wandb" else _TensorBoard(run, step)


class _SafeTracker:
    """A tracker whose failure ends the tracking but not the training."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._tracker is not None:
            self._call(lambda tracker: tracker.log(step, values))

    def close(self) -> None:
        if self._tracker is not None:
            self._call(lambda tracker: tracker.close())

    def _call(self, action: Callable[[Tracker], None]) -> None:
        assert self._tracker is not None
        try:
            with translated_errors(f"track: {self._name} failed"):
                action(self._tracker)
        except InputError as error:
            warn(f"{error}; it gets no more numbers, all are in metrics.jsonl")
            self._tracker = None


class _TensorBoard:
    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, config: TrainConfig, run: Path) -> None:
        import wandb

        # The same id continues the same curve. Points logged after the checkpoint from which a
        # resume starts are logged again with the same values, and W&B drops them.
        with no_prompts():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "wirework",
                entity=os.environ.get("WANDB_ENTITY") or None,
                name=run.name,
                id=_wandb_id(run),
                dir=str(run),
                resume="allow",
                config=config.model_dump(mode="json"),
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(run: Path) -> str:
    """Return the run's id at W&B, which is drawn once and stored in the run folder."""
    path = run / "wandb_id"
    if not is_file(path):
        write_text(path, secrets.token_hex(8))
    return read_whole(path, _WANDB_ID_BYTES)
