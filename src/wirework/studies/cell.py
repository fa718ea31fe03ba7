"""One model of a study, from its settings to the sizes of its circuits, in a folder of its own.

`cells/NAME/` holds `run/` (as training leaves it), `circuits/TARGET/TASK` with the rows of each
target beside them, and at last `cell.json`; or `failed.json` with the reason why there is none.
What is there is not done again as long as the settings are those it was made with.
"""

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wirework.circuits import prune_all
from wirework.config import FrontierConfig, PruneConfig
from wirework.console import warn
from wirework.data import Prepared, record_text
from wirework.errors import DiskFullError, InputError, UnreadableError
from wirework.files import is_file, read_record, write_json, write_record
from wirework.model import Model, load
from wirework.redaction import redact
from wirework.studies.manifest import machine
from wirework.studies.points import CELLS, FrontierPoint, portable, settings_of
from wirework.tasks import Task
from wirework.tasks.split import fingerprint
from wirework.training import train

Cell = dict[str, Any]

_NEEDED = {"name": str, "settings": dict, "tasks": list}
"""What every `cell.json` has, and of which type."""


def cell_folder(out: Path, name: str) -> Path:
    """Return the folder of a model below the study's."""
    return out / CELLS / name


def read_cell(out: Path, name: str) -> Cell:
    """Read what `run_cell` wrote.

    Raises:
        InputError: it is not there, or damaged.
    """
    return read_record(cell_folder(out, name) / "cell.json", _NEEDED)


def finished_cell(
    point: FrontierPoint, study: FrontierConfig, tasks: Sequence[Task], out: Path
) -> Cell | None:
    """Return what `cell.json` says if it was made with these settings and tasks, else None.

    Raises:
        InputError: there can be no such model, or what lies there is damaged.
    """
    wanted = _wanted(point, study, tasks, out)
    path = cell_folder(out, point.name) / "cell.json"
    if not is_file(path):
        return None
    cell = read_cell(out, point.name)
    return cell if cell["settings"] == wanted else None


def run_cell(
    point: FrontierPoint,
    study: FrontierConfig,
    tasks: Sequence[Task],
    out: Path,
    data: Prepared,
    progress: bool = True,
) -> Cell:
    """Train a model, prune it for each task, and write `cell.json`; go on where it was stopped.

    A failure is written to `failed.json` and told in a warning.

    Args:
        point: the model.
        study: settings.
        tasks: what to prune for.
        out: the study's folder.
        data: the text that every model is trained on.
        progress: show progress on standard error.

    Returns:
        The cell: `name, kind, width, l0_count, act_fraction, steps, seed`, the metrics of its
        `Run`, `n_weights, n_nonzero, fingerprint`, `tasks` (rows of `prune_all`), `data`,
        `machine`, `settings`; after a failure where it stands in the grid and `error`.

    Raises:
        UnreadableError: the system failed to read a file.
        Interrupted: a signal came while it was trained.
    """
    folder = cell_folder(out, point.name)
    try:
        record_text(folder / "run", data, settings_of(point, study, out).data, replace=False)
        made = _made(point, study, tasks, out, progress)
        cell = made | {"data": data.fingerprint}
        write_record(folder / "cell.json", cell)
    except (DiskFullError, UnreadableError):
        raise
    except (InputError, RuntimeError, MemoryError) as error:  # out of memory is one of the others
        return failed_cell(point, out, error)
    (folder / "failed.json").unlink(missing_ok=True)
    return cell


def circuits_at(
    target: float, config: PruneConfig, tasks: Sequence[Task], folder: Path, progress: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of `prune_all` for a cell's model at a target loss, found now or before.

    Args:
        target: nats.
        config: the other settings of the search.
        tasks: what to prune for.
        folder: the cell's, with its finished run.
        progress: show a bar on standard error.
    """
    path = folder / "circuits" / f"{target:g}.json"
    config = config.model_copy(update={"target_loss": target})
    model = load(folder / "run")
    wanted = {**_search(config, tasks), "model": model.fingerprint}
    if is_file(path):
        known = read_record(path, {"settings": dict, "tasks": list})
        if known["settings"] == wanted:
            rows: list[dict[str, Any]] = known["tasks"]
            return rows
    rows = prune_all(model, tasks, folder / "circuits" / f"{target:g}", config, progress=progress)
    write_record(path, {"tasks": rows, "settings": wanted})
    return rows


def _made(
    point: FrontierPoint, study: FrontierConfig, tasks: Sequence[Task], out: Path, progress: bool
) -> Cell:
    folder = cell_folder(out, point.name)
    begun = is_file(folder / "run" / "config.yaml")
    run = train(settings_of(point, study, out), resume=begun, progress=progress)
    config = study.prune
    rows = circuits_at(config.target_loss, config, tasks, folder, progress) if tasks else []
    return {
        **about(point),
        **run.metrics,
        **_counts(run.model),
        "tasks": rows,
        "machine": machine(),
        "settings": _wanted(point, study, tasks, out),
    }


def about(point: FrontierPoint) -> Cell:
    """Return what a point is called and where in the grid it stands."""
    names = ("name", "kind", "width", "l0_count", "act_fraction", "steps", "seed")
    return {name: getattr(point, name) for name in names}


def _counts(model: Model) -> dict[str, Any]:
    every, nonzero = model.transformer.weight_counts()
    return {"n_weights": every, "n_nonzero": nonzero, "fingerprint": model.fingerprint}


def _wanted(
    point: FrontierPoint, study: FrontierConfig, tasks: Sequence[Task], out: Path
) -> dict[str, Any]:
    """Return all that a cell's content depends on."""
    return {"train": portable(settings_of(point, study, out)), **_search(study.prune, tasks)}


def _search(config: PruneConfig, tasks: Sequence[Task]) -> dict[str, Any]:
    prints = {task.name: fingerprint(task) for task in tasks}
    return {"prune": config.recorded(), "tasks": prints}


def failed_cell(point: FrontierPoint, out: Path, error: Exception) -> Cell:
    """Write `failed.json`, with a traceback where the error is none of the user's; warn of it."""
    message = redact(" ".join(str(error).split())) or type(error).__name__
    known = isinstance(error, InputError)
    lines = [] if known else [redact(line) for line in traceback.format_exception(error)]
    trace = {"traceback": lines} if lines else {}
    cell = {**about(point), "error": message}
    write_json(cell_folder(out, point.name) / "failed.json", {**cell, **trace})
    warn(f"{point.name} failed, the study goes on: {message}")
    return cell
