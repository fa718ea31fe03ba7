"""The learning rate of a model of the frontier study: short runs try a few, the best one trains.

`cells/NAME/rates/` holds a run for each rate and `rates.json`, from which a resumed study reads the
result. Source: Gao et al. 2025, App. A.2 (the learning rate is swept for each experiment).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from wirework.config import FrontierConfig
from wirework.data import Prepared, record_text
from wirework.errors import DiskFullError, InputError, UnreadableError
from wirework.files import is_file, read_record, write_record
from wirework.studies.points import CELLS, FrontierPoint, portable, settings_of
from wirework.training import train

Sweep = dict[str, Any]


def sweep_rates(
    point: FrontierPoint, study: FrontierConfig, out: Path, data: Prepared, progress: bool = True
) -> Sweep | None:
    """Return the learning rate that a short run of the model ends best with; None without a sweep.

    Each short run has the whole schedule in fewer steps. A model with another seed takes the rate
    of the model of the grid.

    Args:
        point: the model.
        study: its `lrs` and `lr_share`.
        out: the study's folder.
        data: the text that every model is trained on.
        progress: show progress on standard error.

    Returns:
        `setting` (of `lrs`), `lr` (of this model: dense ones have a factor), `at_edge` (whether it
        is the lowest or highest of several, so that a better one may lie beyond), `steps` of a
        short run and `tried`: `lr` and `val_loss` of each, nats per token, or `error`.

    Raises:
        InputError: no rate ends with a finite loss.
        Interrupted: a signal came; the short runs so far are kept.
    """
    if not study.lrs:
        return None
    point = replace(point, seed=study.train.seed, is_reseeded=False)
    folder = out / CELLS / point.name / "rates"
    path = folder / "rates.json"
    wanted = {"train": portable(settings_of(point, study, out)), **recorded_sweep(point, study)}
    if is_file(path):
        stored = read_record(path, {"settings": dict, "sweep": dict})
        if stored["settings"] == wanted:
            return {**stored["sweep"], "at_edge": _at_edge(stored["sweep"]["setting"], study)}
    tried = [_try(point, study, out, folder, lr, data, progress) for lr in study.lrs]
    ended = [row for row in tried if "error" not in row]
    if not ended:
        raise InputError(f"no learning rate of lrs trains {point.name}: {tried[0]['error']}")
    best = min(ended, key=lambda row: row["val_loss"])
    at_edge = _at_edge(best["setting"], study)
    sweep = {**best, "at_edge": at_edge, "steps": short_steps(point, study), "tried": tried}
    write_record(path, {"sweep": sweep, "settings": wanted})
    return sweep


def _at_edge(setting: float, study: FrontierConfig) -> bool:
    return len(study.lrs) > 1 and setting in (min(study.lrs), max(study.lrs))


def recorded_sweep(point: FrontierPoint, study: FrontierConfig) -> dict[str, Any]:
    """Return the settings of a sweep."""
    return {"lrs": list(study.lrs), "steps": short_steps(point, study)}


def short_steps(point: FrontierPoint, study: FrontierConfig) -> int:
    """Return the steps of a short run."""
    return max(1, round(study.lr_share * point.steps))


def _try(
    point: FrontierPoint,
    study: FrontierConfig,
    out: Path,
    folder: Path,
    lr: float,
    data: Prepared,
    progress: bool,
) -> dict[str, Any]:
    """Train a short run with a learning rate; a loss that is not finite is a result too."""
    steps = short_steps(point, study)
    run = folder / f"{lr:g}-s{steps}"
    config = settings_of(point, study, out, lr=lr).model_copy(
        update={"name": run.name, "runs": folder, "steps": steps}
    )
    rates = {"setting": lr, "lr": config.optimizer.lr}
    record_text(run, data, config.data, replace=False)
    try:
        trained = train(config, resume=is_file(run / "config.yaml"), progress=progress)
    except (DiskFullError, UnreadableError):
        raise
    except InputError as error:
        return {**rates, "error": str(error)}
    return {**rates, "val_loss": trained.metrics["val_loss"]}
