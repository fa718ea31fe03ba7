"""Other people's weights: reading a state dict and giving its tensors our names."""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wirework.errors import InputError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running what a pickle may hold.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    # A damaged file fails wherever the damage meets the unpickler, in many ways.
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is damaged or not a PyTorch state dict: {reason}") from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} is not a state dict: expected names to tensors")
    return dict(state)


def _check_archive(path: Path) -> None:
    """Compare the checksums inside a `.pt` file, which `torch.load` does not."""
    if not zipfile.is_zipfile(path):  # the format before PyTorch 1.6 has none
        return
    with zipfile.ZipFile(path) as archive:
        spoiled = archive.testzip()
    if spoiled is not None:
        raise zipfile.BadZipFile(f"{spoiled} does not match its checksum")


def our_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    their_names: Callable[[str], Sequence[str]],
    source: str,
    left_aside: re.Pattern[str],
) -> dict[str, Tensor]:
    """Return their tensors under our names, all of them used and each of the right shape.

    Args:
        state: theirs, name to tensor.
        expected: what the tensors are for, by our names.
        their_names: their names of one of ours; several stand below each other in it.
        source: where they came from, for messages.
        left_aside: their tensors that need no place.

    Raises:
        InputError: a tensor is missing, has no place or the wrong shape.
    """
    theirs = {name: tuple(their_names(name)) for name in expected}
    for name, tensor in expected.items():
        shape = (tensor.shape[0] // len(theirs[name]), *tensor.shape[1:])
        for part in theirs[name]:
            found = state.get(part)
            if found is None:
                raise InputError(f"{source} lacks the tensor {part}")
            if found.shape != shape:
                raise InputError(
                    f"{source}: {part} is {tuple(found.shape)}, the config says {tuple(shape)}"
                )
    placed = {part for parts in theirs.values() for part in parts}
    for name in sorted(state.keys() - placed):
        if not left_aside.fullmatch(name):
            raise InputError(f"{source} has the tensor {name}, which the config gives no place")
    return {
        name: torch.cat([state[part].to_dense() for part in parts])
        for name, parts in theirs.items()
    }


def block_prefix(name: str) -> tuple[str, str]:
    """Split one of our names: `transformer.h.0.` and `mlp.up.bias` of `blocks.0.mlp.up.bias`.

    A tensor that stands in no block has no prefix.
    """
    if not name.startswith("blocks."):
        return "", name
    _, layer, rest = name.split(".", 2)
    return f"transformer.h.{layer}.", rest


def with_tied(
    state: dict[str, Tensor], embed: str, unembed: str, source: str, said: str
) -> dict[str, Tensor]:
    """Return a state that names a tied embedding under both its names, whichever it had.

    Raises:
        InputError: both are there and differ.
    """
    known = {name: state[name] for name in (embed, unembed) if name in state}
    if len(known) == 2 and not torch.equal(known[embed], known[unembed]):
        raise InputError(f"{source}: {said}, but {embed} and {unembed} differ")
    return state | {name: one for one in known.values() for name in (embed, unembed)}
