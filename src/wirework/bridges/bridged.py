"""`Bridged`: a dense model, a weight-sparse one, and the bridges between them.

Source: Gao et al. 2025, sec. 2.3, App. A.3.
"""

from dataclasses import dataclass
from pathlib import Path

from wirework import files
from wirework.config import BridgeConfig, TrainConfig
from wirework.errors import InputError
from wirework.model import Model, load
from wirework.nn.bridges import Bridges
from wirework.summaries import shown_as
from wirework.training import train
from wirework.training.bridge_files import SavedBridges, has_bridges, read_bridges
from wirework.training.dense_model import refuse_training_mode
from wirework.training.run_folder import finished_run


@dataclass(frozen=True)
class Bridged:
    """Two models and the bridges between their residual streams, on the CPU."""

    dense: Model
    """The dense model."""
    sparse: Model
    """The weight-sparse model that was trained beside it."""
    bridges: Bridges
    """Encoders and decoders of all residual locations."""
    path: Path
    """Folder of the run."""

    def __repr__(self) -> str:
        n_locations = len(self.bridges.encoders)
        models = f"{self.dense.path} to {self.sparse.path}"
        return shown_as("Bridged", models, f"{n_locations} residual locations")


def bridge(
    dense: str | Path | Model,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Bridged:
    """Train a weight-sparse model beside a dense one, with bridges between them.

    Args:
        dense: model or run folder of the dense model, or a model that was loaded from one. A model
            of Hugging Face is converted first (`wirework convert huggingface`).
        config: settings of the run; without `bridges` in them, the defaults of `BridgeConfig`.
        resume: continue the run of that name from its newest undamaged checkpoint.
        progress: show progress on standard error.

    Raises:
        InputError: there is no dense model, it is in training mode or does not fit the settings,
            or as `train`.
        Interrupted: a signal came; the work so far is in a checkpoint.

    Source: Gao et al. 2025, sec. 2.3, App. A.3.
    """
    run = train(with_bridges(config or TrainConfig(), dense), resume, progress)
    return load_bridged(run.path)


def with_bridges(config: TrainConfig, dense: str | Path | Model | None) -> TrainConfig:
    """Return settings that train bridges to a dense model.

    Args:
        config: settings; those of `bridges` are kept.
        dense: the dense model; None for that of the settings.

    Raises:
        InputError: the model has no folder, is in training mode, or is not that of the settings.
    """
    bridges = config.bridges or BridgeConfig()
    if dense is not None:
        path = _folder_of(dense)
        if bridges.dense not in (None, path):
            raise InputError(f"two dense models, {path} and bridges.dense {bridges.dense}")
        bridges = bridges.model_copy(update={"dense": path})
    return config.model_copy(update={"bridges": bridges})


def load_bridged(path: str | Path, dense: str | Path | Model | None = None) -> Bridged:
    """Load a bridged run: both models and the bridges.

    Args:
        path: folder of the run.
        dense: the dense model, if it is no longer where the run found it.

    Returns:
        Models and bridges on the CPU.

    Raises:
        InputError: the run has no bridges or is not finished, a file is damaged, the dense model is
            missing, or one of the models is not the one that the bridges were trained with.
    """
    run = Path(path)
    if not files.exists(run):
        raise InputError(f"no run at {run}")
    _refuse_unfinished(run)
    saved = read_bridges(run)
    dense_model = load(_found(saved, run) if dense is None else dense)
    if dense_model.fingerprint != saved.dense_fingerprint:
        raise InputError(
            f"the dense model {dense_model.path} changed since training of {run}: its bridges do "
            "not fit it"
        )
    sparse = load(run / "model")
    if saved.sparse_fingerprint not in (None, sparse.fingerprint):
        raise InputError(
            f"the sparse model of {run} is not the one that its bridges were trained with: put it "
            "back, or train under another name"
        )
    return Bridged(dense_model, sparse, saved.bridges, run)


def is_bridged_run(path: str | Path) -> bool:
    """Return whether a folder is a run with bridges."""
    return has_bridges(Path(path))


def _refuse_unfinished(run: Path) -> None:
    """Raise an InputError if a run is to have bridges and its training is not finished."""
    settings = run / "config.yaml"
    if has_bridges(run) or not files.is_file(settings):
        return
    if TrainConfig.load(settings).bridges is not None and finished_run(run) is None:
        raise InputError(
            f"{run} is not finished and has no bridges yet: `wirework bridge` with the same "
            "settings and --resume goes on"
        )


def _folder_of(dense: str | Path | Model) -> Path:
    """Return the folder of a dense model."""
    if not isinstance(dense, Model):
        return Path(dense)
    refuse_training_mode(dense)
    if dense.path is None:
        raise InputError("the dense model has no folder: save it and load it from there")
    return dense.path


def _found(saved: SavedBridges, run: Path) -> Path:
    """Return the first folder that the dense model may be in and that exists."""
    for path in saved.dense_paths:
        if files.is_file(path / "config.json"):
            return path
    raise InputError(
        f"the dense model of {run} is not in {saved.dense_paths[-1]} any more: give its folder "
        "as `dense`"
    )
