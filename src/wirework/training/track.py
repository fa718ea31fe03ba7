"""TensorBoard and Weights & Biases, when the settings ask for them (extra `track`)."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from wirework.errors import InputError
from wirework.files import write_text
from wirework.foreign import no_prompts
from wirework.training.metrics import Tracker


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed, before any work is done.

    Raises:
        InputError: names the extra that brings it.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(
                f"track: {name} is not installed: pip install 'wirework[track]', or leave it out"
            )


def open_trackers(names: Sequence[str], run: Path, step: int) -> list[Tracker]:
    """Open the named trackers for a run folder.

    Args:
        names: `tensorboard`, `wandb`.
        run: the run folder; what they write to disk goes below it.
        step: where training goes on; later points of an earlier try are dropped.
    """
    makers: dict[str, Callable[[Path, int], Tracker]] = {
        "tensorboard": _TensorBoard,
        "wandb": _WandB,
    }
    return [makers[name](run, step) for name in names]


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
    def __init__(self, run: Path, step: int) -> None:
        import wandb

        # The same id on a resume goes on with the same chart; points before `step` stay.
        with no_prompts():
            self._run = wandb.init(
                project="wirework", name=run.name, id=_wandb_id(run), dir=str(run),
                resume="allow", config={"resumed_at": step},
            )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(run: Path) -> str:
    """Return what tells this run from others of its name; made once, kept in the run folder."""
    path = run / "wandb_id"
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8")
