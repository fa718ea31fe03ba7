"""The folder of bridges in a run: `bridges.json`, `bridges.safetensors` and `checksums.json`.

Only this module reads and writes it. Nothing is pickled.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict
from torch import Tensor

from wirework import __version__, files
from wirework.config.base import Config, Count, Fraction
from wirework.errors import InputError, quoted
from wirework.model import Model
from wirework.model_tensors import as_float32, refuse_missing, refuse_shapes, shortened
from wirework.nn.bridges import Bridges
from wirework.nn.residual_locations import location_names
from wirework.tensor_files import read_tensors

FORMAT = "wirework-bridges"
VERSION = 1
_ABOUT, _TENSORS = "bridges.json", "bridges.safetensors"


class _SparseRecord(Config):
    """Which sparse model the bridges belong to; keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    fingerprint: str


class _DenseRecord(_SparseRecord):
    """Which dense model they belong to."""

    relative: str
    """Its folder, relative to the run."""
    absolute: str


class _Record(Config):
    """Content of `bridges.json`; keys of later versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    locations: tuple[str, ...]
    d_dense: Count
    d_sparse: Count
    act_fraction: Fraction | None
    dense: _DenseRecord
    sparse: _SparseRecord | None = None
    """None in files that are older than this entry."""


@dataclass(frozen=True)
class SavedBridges:
    """Bridges that were read from a folder, and which models they belong to."""

    bridges: Bridges
    dense_paths: tuple[Path, ...]
    """Where the dense model may be: relative to the run, then where it was."""
    dense_fingerprint: str
    """Fingerprint of the dense model."""
    sparse_fingerprint: str | None
    """Fingerprint of the sparse model; None if the file is older than the record of it."""


def save_bridges(folder: Path, bridges: Bridges, dense: Model, sparse: Model) -> None:
    """Write bridges, whole or not at all.

    Args:
        folder: the folder `bridges` of the run.
        bridges: bridges on the CPU.
        dense: the dense model, loaded from a folder.
        sparse: the trained model of the run.

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
        "sparse": {"fingerprint": sparse.fingerprint},
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
    record = _Record.of(about, str(path))
    dense, sparse = record.dense, record.sparse
    # Before the bridges are built, since a wrong width could take all memory.
    tensors = _checked_tensors(folder / _TENSORS, record)
    bridges = Bridges(len(record.locations), record.d_dense, record.d_sparse, record.act_fraction)
    bridges.load_state_dict(tensors)
    return SavedBridges(
        bridges.eval().requires_grad_(False),
        (Path(os.path.normpath(run.resolve() / dense.relative)), Path(dense.absolute)),
        dense.fingerprint,
        None if sparse is None else sparse.fingerprint,
    )


def _checked_tensors(path: Path, record: _Record) -> dict[str, Tensor]:
    """Read the tensors of the bridges in float32.

    Raises:
        InputError: the file is damaged, or its tensors are not those of the record.
    """
    tensors, expected, source = read_tensors(path), _shapes(record), str(path)
    unused = sorted(tensors.keys() - expected.keys())
    refuse_missing([name for name in expected if name not in tensors], unused, source)
    if unused:
        raise InputError(f"{source} has {shortened(unused)}, which {_ABOUT} does not name")
    refuse_shapes({name: t.shape for name, t in tensors.items()}, expected, source)
    return as_float32(tensors, source)


def _shapes(record: _Record) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the bridges by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, width, inputs in (
        ("encoders", record.d_sparse, record.d_dense),
        ("decoders", record.d_dense, record.d_sparse),
    ):
        for location in range(len(record.locations)):
            shapes[f"{kind}.{location}.weight"] = (width, inputs)
            shapes[f"{kind}.{location}.bias"] = (width,)
    return shapes
