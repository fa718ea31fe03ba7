"""Checkpoints: all that training goes on from, in folders that are whole or not used.

`checkpoints/step-N/` holds `tensors.safetensors` (parameters, Adam moments, random states),
`state.json` (the rest) and `checksums.json`. Nothing is pickled. This is the one place that reads
and writes them.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from wirework import __version__, files
from wirework.console import warn
from wirework.errors import (
    DamagedError,
    InputError,
    UnreadableError,
    cannot_write,
    quoted,
    translated_errors,
)
from wirework.tensor_files import read_tensors

FORMAT = "wirework-checkpoint"
VERSION = 1


_Count = Annotated[int, Field(ge=0)]


@dataclass
class TrainState:
    """What a run knows of itself besides its tensors. The position in the data is the step."""

    step: _Count = 0
    """Optimizer steps done."""
    evaluated: _Count = 0
    """Step of the last evaluation; 0: none yet."""
    last_eval: dict[str, Any] = field(default_factory=dict)
    """What the last evaluation found."""
    best_step: _Count | None = None
    """Step of the lowest held-out loss among checkpoints at the final nonzero fraction."""
    best_loss: float | None = None
    """That loss, in nats."""
    metrics_bytes: _Count = 0
    """How much of metrics.jsonl belongs to this state."""
    seconds: float = 0.0
    """Time spent so far, over all resumes."""
    threads: _Count = 0
    """CPU threads of torch; another number may round sums differently."""
    machine: str = ""
    """Processor, libraries and threads; others may round sums differently."""
    choices: dict[str, str] = field(default_factory=dict)
    """What was chosen for this machine by measuring (`fastest.py`), which a resume keeps to."""
    data: str = ""
    """Fingerprint of the tokens."""
    tokenizer: str = ""
    """Fingerprint of the tokeniser."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The run's `TrainConfig`, as JSON values."""


def save_checkpoint(folder: Path, state: TrainState, tensors: Mapping[str, Tensor]) -> Path:
    """Write `folder/step-N`, whole or not at all; return it.

    Args:
        folder: the run's `checkpoints`.
        state: its step gives the name.
        tensors: from `gather`.

    Raises:
        InputError: the disk is full or cannot be written to.
    """
    path = folder / f"step-{state.step}"
    about = {"format": FORMAT, "version": VERSION, "wirework": __version__, **asdict(state)}
    with files.atomic_dir(path) as partial:
        files.write_json(partial / "state.json", about)
        files.save_tensors(partial / "tensors.safetensors", tensors)
    return path


def newest_checkpoint(folder: Path) -> tuple[TrainState, dict[str, Tensor]] | None:
    """Read the newest whole checkpoint; a damaged one is passed over with a warning.

    Returns:
        State and tensors (on the CPU), or None where there has never been a checkpoint.

    Raises:
        InputError: there are checkpoints and none is whole, the newest cannot be read, which says
            nothing about its content, or a later version wrote it.
    """
    found = checkpoint_steps(folder)
    for step in reversed(found):
        path = folder / f"step-{step}"
        try:
            return _read(path)
        except DamagedError as error:
            warn(f"{error}; trying the checkpoint before it")
        except UnreadableError as error:
            raise UnreadableError(
                f"{error}. Nothing was deleted: try again, or move {path} away to go on from the "
                "checkpoint before it"
            ) from error
    if found:
        raise DamagedError(f"none of the {len(found)} checkpoints in {folder} is whole")
    return None


def newest_state(folder: Path) -> TrainState | None:
    """Read what the newest whole checkpoint says of its run, without its tensors.

    Raises:
        InputError: the system failed to read one (`UnreadableError`), or a later version wrote it.
    """
    for step in reversed(checkpoint_steps(folder)):
        path = folder / f"step-{step}" / "state.json"
        with suppress(DamagedError):
            files.verify_listed(path, needed=True)
            return _read_state(path)
    return None


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint folder, damaged or not, ascending.

    Raises:
        UnreadableError: the system cannot tell.
    """
    names = files.entries(folder)
    numbers = (name.removeprefix("step-") for name in names if name.startswith("step-"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def prune_checkpoints(folder: Path, keep: int, best: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the one of step `best`."""
    steps = checkpoint_steps(folder)
    for step in steps[:-keep]:
        if step != best:
            shutil.rmtree(folder / f"step-{step}", ignore_errors=True)


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Rename the checkpoints that a resume passed over to `step-N.damaged`.

    They stay for whoever wants to look into them, and none counts as the newest.

    Raises:
        InputError: the folder cannot be written to.
    """
    for number in checkpoint_steps(folder):
        if number > step:
            damaged = folder / f"step-{number}"
            aside = _free_name(folder, f"step-{number}.damaged")
            try:
                damaged.rename(aside)
            except OSError as error:
                raise cannot_write(aside, error) from error
            warn(f"{damaged} is kept as {aside.name}: delete it when you no longer need it")


def _free_name(folder: Path, name: str) -> Path:
    taken = files.entries(folder)
    names = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return folder / next(one for one in names if one not in taken)


def gather(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return every tensor that training goes on from, by name; nothing is copied on the CPU."""
    tensors = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        tensors[f"model/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


@torch.no_grad()
def restore_(
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Put back what `gather` took, random states included.

    Raises:
        InputError: a tensor is missing, or of another shape or type: the checkpoint of another
            model.
    """
    for name, parameter in trained.items():
        parameter.copy_(_fitting(tensors, f"model/{name}", parameter))
        moments = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        kept = any(f"optimizer/{key}/{name}" in tensors for key in moments)
        if parameter.requires_grad and kept:
            optimizer.state[parameter] = {
                key: _fitting(tensors, f"optimizer/{key}/{name}", like).to(
                    parameter.device, copy=True
                )
                for key, like in moments.items()
            }
    state = _fitting(tensors, "rng/cpu", torch.get_rng_state())
    with translated_errors("the checkpoint does not hold a random state"):
        torch.set_rng_state(state)
        if "rng/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng/cuda"])


def _read(path: Path) -> tuple[TrainState, dict[str, Tensor]]:
    files.verify_dir(path)
    state = _read_state(path / "state.json")
    return state, read_tensors(path / "tensors.safetensors")


def _read_state(path: Path) -> TrainState:
    """Read a `state.json` whose checksum is right.

    Raises:
        DamagedError: an entry has another type than `TrainState` says, or the step is missing.
        InputError: it is of another format, or of a later version.
    """
    about = files.read_json(path)
    if not isinstance(about, dict):
        raise DamagedError(f"{path} is damaged: expected an object, got {quoted(about)}")
    found = about.get("version")
    if about.get("format") != FORMAT or type(found) is not int or found > VERSION:
        raise InputError(
            f"{path.parent} is not a checkpoint that this version reads: "
            f"{quoted(about.get('format'))} {quoted(found)}, not {FORMAT} {VERSION}"
        )
    settings = about.pop("settings", {})  # any JSON values, and paths that are no UTF-8
    if not isinstance(settings, dict):
        raise DamagedError(f"{path} is damaged: 'settings': expected an object")
    try:
        state = TypeAdapter(TrainState).validate_json(json.dumps(about), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise DamagedError(f"{path} is damaged: {quoted(name)}: {first['msg']}") from error
    if f"step-{about.get('step')}" != path.parent.name:
        raise DamagedError(f"{path} is damaged: it is of step {quoted(about.get('step'))}")
    return replace(state, settings=settings)


def _fitting(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
        found = "nothing" if tensor is None else _described(tensor)
        raise InputError(
            f"the checkpoint does not fit the model: {name} is {found}, not {_described(like)}"
        )
    return tensor


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
