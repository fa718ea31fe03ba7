"""The folder of bridges in a run: `bridges.json`, `bridges.safetensors` and `checksums.json`.

Only this module reads and writes it. Nothing is pickled.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from wirework import __version__, files
from wirework.errors import DamagedError, InputError, quoted
from wirework.model import Model
from wirework.model_tensors import as_float32, refuse_missing, refuse_shapes
from wirework.nn.bridges import Bridges
from wirework.nn.residual_locations import location_names
from wirework.tensor_files import read_tensors

FORMAT = "wirework-bridges"
VERSION = 1
_ABOUT, _TENSORS = "bridges.json", "bridges.safetensors"


@dataclass(frozen=True)
class SavedBridges:
    """Bridges that were read from a folder, and which dense model they belong to."""

    bridges: Bridges
    dense_paths: tuple[Path, ...]
    """Where the dense model may be: relative to the run, then where it was."""
    dense_fingerprint: str
    """Fingerprint of the dense model."""


def save_bridges(folder: Path, bridges: Bridges, dense: Model) -> None:
    """Write bridges, whole or not at all.

    Args:
        folder: the folder `bridges` of the run.
        bridges: bridges on the CPU.
        dense: the dense model, loaded from a folder.

    Raises:
        InputError: the folder cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in bridges.state_dict().items()}
    path = Path(str(dense.path)).resolve()
    about = {
        "format": FORMAT,
        "version": VERSION,
        "wirework": __version__,
        "locations": location_names(dense.config.n_layer),
        "d_dense": bridges.decoders[0].out_features,
        "d_sparse": bridges.encoders[0].out_features,
        "act_fraction": bridges.act_fraction,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "dense": {
            "relative": os.path.relpath(path, folder.parent.resolve()),
            "absolute": str(path),
            "fingerprint": dense.fingerprint,
        },
    }
    with files.atomic_dir(folder) as partial:
        files.write_record(partial / _ABOUT, about)
        files.save_tensors(partial / _TENSORS, tensors, {"format": FORMAT})


def has_bridges(run: Path) -> bool:
    """Return whether the folder of a run has bridges."""
    return files.is_file(run / "bridges" / _ABOUT)


def read_bridges(run: Path) -> SavedBridges:
    """Read the bridges of a run.

    Args:
        run: the folder of the run.

    Raises:
        InputError: the run has no bridges, a later version wrote them, or they are damaged.
    """
    folder = run / "bridges"
    path = folder / _ABOUT
    if not files.is_file(path):
        raise InputError(f"{run} is not a bridged run: it has no bridges/{_ABOUT}")
    files.verify_dir(folder, (_ABOUT, _TENSORS))
    about = files.read_record(path, {"format": str, "version": int})
    if about["format"] != FORMAT or about["version"] > VERSION:
        raise InputError(
            f"{folder} has no bridges that this version reads: {quoted(about['format'])} "
            f"{about['version']}, not {FORMAT} {VERSION}"
        )
    try:
        bridges = Bridges(
            len(about["locations"]), about["d_dense"], about["d_sparse"], about["act_fraction"]
        )
        dense = about["dense"]
        paths = ((run / dense["relative"]).resolve(), Path(dense["absolute"]))
        fingerprint = str(dense["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    tensors, expected = read_tensors(folder / _TENSORS), bridges.state_dict()
    refuse_missing(
        [name for name in expected if name not in tensors],
        tensors.keys() - expected.keys(),
        str(folder / _TENSORS),
    )
    refuse_shapes(
        {name: tensor.shape for name, tensor in tensors.items()},
        {name: tensor.shape for name, tensor in expected.items()},
        str(folder / _TENSORS),
    )
    bridges.load_state_dict(as_float32(tensors, str(folder / _TENSORS)))
    return SavedBridges(bridges.eval().requires_grad_(False), paths, fingerprint)
