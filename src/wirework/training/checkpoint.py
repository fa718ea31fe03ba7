"""Checkpoints: everything that a resumed run needs. A folder that is damaged is not used.

`checkpoints/step-N/` holds `tensors.safetensors` (parameters, Adam moments, random states),
`state.json` (the rest) and `checksums.json`. Nothing is pickled. Only this module reads and writes
checkpoints.
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
    """State of a run besides its tensors. The position in the data follows from the step."""

    step: _Count = 0
    """Optimizer steps done."""
    evaluated: _Count = 0
    """Step of the last evaluation; 0: none yet."""
    last_eval: dict[str, Any] = field(default_factory=dict)
    """Numbers of the last evaluation."""
    best_step: _Count | None = None
    """Step with the lowest held-out loss among checkpoints at the final nonzero fraction."""
    best_loss: float | None = None
    """That loss, in nats."""
    metrics_bytes: _Count = 0
    """Bytes of metrics.jsonl that belong to this state."""
    seconds: float = 0.0
    """Training time so far, over all resumes."""
    threads: _Count = 0
    """CPU threads of torch. Another number may round sums differently."""
    machine: str = ""
    """Processor, libraries and threads. Others may round sums differently."""
    choices: dict[str, str] = field(default_factory=dict)
    """Methods chosen by measuring on this machine (`fastest.py`); a resumed run uses the same."""
    data: str = ""
    """Fingerprint of the tokens."""
    tokenizer: str = ""
    """Fingerprint of the tokeniser."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The run's `TrainConfig`, as JSON values."""
    started_on_tasks: bool | None = False
    """`trained_on_tasks` of the models that the run started from or has bridges to."""
    dense: str = ""
    """Fingerprint of the dense model that the run has bridges to."""


def save_checkpoint(folder: Path, state: TrainState, tensors: Mapping[str, Tensor]) -> Path:
    """Write the checkpoint `folder/step-N`, whole or not at all.

    Args:
        folder: the `checkpoints` folder of the run.
        state: state of the run; its step is the N of the name.
        tensors: result of `gather`.

    Returns:
        The folder of the checkpoint.

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
    """Read the newest undamaged checkpoint; a damaged one is skipped with a warning.

    Args:
        folder: the `checkpoints` folder of the run.

    Returns:
        State and tensors (on the CPU), or None if there is no checkpoint.

    Raises:
        InputError: all checkpoints are damaged; the system fails to read the newest one, which may
            be undamaged; or a later version wrote it.
    """
    steps = checkpoint_steps(folder)
    for step in reversed(steps):
        path = folder / f"step-{step}"
        try:
            return _read(path)
        except DamagedError as error:
            warn(f"{error}; trying the checkpoint before it")
        except UnreadableError as error:
            raise UnreadableError(
                f"{error}. Nothing was deleted: try again, or move {path} away to resume from the "
                "checkpoint before it"
            ) from error
    if steps:
        raise DamagedError(f"all {len(steps)} checkpoints in {folder} are damaged")
    return None


def newest_state(folder: Path) -> TrainState | None:
    """Read the state of the newest undamaged checkpoint, without its tensors.

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
        UnreadableError: the system fails to list the folder.
    """
    names = files.entries(folder)
    numbers = (name.removeprefix("step-") for name in names if name.startswith("step-"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def prune_checkpoints(folder: Path, keep: int, best: int | None) -> None:
    """Delete old checkpoints, but keep the newest `keep` and the one of step `best`."""
    steps = checkpoint_steps(folder)
    for step in steps[:-keep]:
        if step != best:
            shutil.rmtree(folder / f"step-{step}", ignore_errors=True)


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Rename the damaged checkpoints that a resume skipped to `step-N.damaged`.

    They are kept for inspection, and no longer count as the newest.

    Raises:
        InputError: the folder cannot be written to.
    """
    for number in checkpoint_steps(folder):
        if number > step:
            damaged = folder / f"step-{number}"
            kept_as = _free_name(folder, f"step-{number}.damaged")
            try:
                damaged.rename(kept_as)
            except OSError as error:
                raise cannot_write(kept_as, error) from error
            warn(f"{damaged} is kept as {kept_as.name}: delete it when you no longer need it")


def _free_name(folder: Path, name: str) -> Path:
    taken = files.entries(folder)
    names = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return folder / next(candidate for candidate in names if candidate not in taken)


def gather(
    trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name; tensors on the CPU are not copied."""
    tensors = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    for name, parameter in trained.items():
        tensors[f"model/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def model_weights(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in the tensors of a checkpoint, also where live weights were trained.

    Args:
        tensors: tensors of a checkpoint. A live matrix is stored as values at flat indices.
        like: a tensor of the right shape for each weight, by name.
    """
    weights = {}
    for name, shaped in like.items():
        if (places := tensors.get(f"live/places/{name}")) is not None:
            flat = torch.zeros_like(shaped).flatten()
            values = tensors[f"live/values/{name}"]
            weights[name] = flat.index_copy(0, places, values).view_as(shaped)
        else:
            weights[name] = tensors[f"model/{name}"]
    return weights


@torch.no_grad()
def restore_(
    trained: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
) -> None:
    """Restore parameters, optimizer and random states from the tensors of `gather`.

    Args:
        trained: parameters by name; changed in place.
        optimizer: changed in place.
        tensors: tensors of a checkpoint.

    Raises:
        InputError: a tensor is missing, or has another shape or dtype, as in the checkpoint of
            another model.
    """
    for name, parameter in trained.items():
        parameter.copy_(_fitting(tensors, f"model/{name}", parameter))
        moments = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        has_moments = any(f"optimizer/{key}/{name}" in tensors for key in moments)
        if parameter.requires_grad and has_moments:
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
    """Read a `state.json` whose checksum has been verified.

    Raises:
        DamagedError: an entry does not have the type of `TrainState`, or the step is missing.
        InputError: another format, or a later version.
    """
    about = files.read_json(path)
    if not isinstance(about, dict):
        raise DamagedError(f"{path} is damaged: expected an object, got {quoted(about)}")
    written = about.get("version")
    if about.get("format") != FORMAT or type(written) is not int or written > VERSION:
        raise InputError(
            f"{path.parent} is not a checkpoint that this version reads: "
            f"{quoted(about.get('format'))} {quoted(written)}, not {FORMAT} {VERSION}"
        )
    settings = about.pop("settings", {})  # any JSON values, and paths that are not UTF-8
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
        stored = "missing" if tensor is None else _described(tensor)
        raise InputError(
            f"the checkpoint does not fit the model: {name} is {stored}, not {_described(like)}"
        )
    return tensor


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
