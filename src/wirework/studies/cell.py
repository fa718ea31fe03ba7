"""One model of the frontier study: train it, prune it for each task, record both in a folder.

`cells/NAME/` holds `rates/` (short runs with other learning rates, if the study has them), `run/`
(the training run), `circuits/TARGET/TASK` (its circuits),
`circuits/TARGET.json` (their sizes) and, once all of it is done, `cell.json`. A failure leaves
`failed.json` instead, with the reason. A finished part is read again and not redone, unless its
settings have changed.
"""

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wirework.circuits import prune_all
from wirework.circuits.pipeline.task_table import with_kept_edges
from wirework.config import FrontierConfig, PruneConfig
from wirework.console import warn
from wirework.data import Prepared, record_text
from wirework.errors import DiskFullError, InputError, UnreadableError
from wirework.files import is_file, read_record, write_json, write_record
from wirework.model import Model, load
from wirework.redaction import redact
from wirework.studies.learning_rate import Sweep, recorded_sweep, sweep_rates
from wirework.studies.manifest import machine_facts
from wirework.studies.multiply_adds import training_multiply_adds
from wirework.studies.points import CELLS, FrontierPoint, portable, settings_of
from wirework.tasks import Task
from wirework.tasks.task_split import fingerprint, split_fingerprint
from wirework.training import train

Cell = dict[str, Any]

_NEEDED = {"name": str, "settings": dict, "tasks": list}
"""Required keys of `cell.json` and their types."""


def cell_folder(out: Path, name: str) -> Path:
    """Return the folder of a model, below the study's folder."""
    return out / CELLS / name


def read_cell(out: Path, name: str) -> Cell:
    """Read `cell.json`, which `run_cell` wrote; rows of an earlier version in today's form.

    Raises:
        InputError: the file is missing or damaged.
    """
    cell = read_record(cell_folder(out, name) / "cell.json", _NEEDED)
    return cell | {"tasks": with_kept_edges(cell["tasks"])}


def finished_cell(
    point: FrontierPoint, study: FrontierConfig, tasks: Sequence[Task], out: Path
) -> Cell | None:
    """Return the content of `cell.json` if it has these settings and tasks, else None.

    Raises:
        InputError: no model can have these settings, or the file is damaged.
    """
    settings = _recorded_settings(point, study, tasks, out)
    path = cell_folder(out, point.name) / "cell.json"
    if not is_file(path):
        return None
    cell = read_cell(out, point.name)
    return cell if are_same(cell["settings"], settings) else None


def run_cell(
    point: FrontierPoint,
    study: FrontierConfig,
    tasks: Sequence[Task],
    out: Path,
    data: Prepared,
    progress: bool = True,
    bigram_loss: float | None = None,
) -> Cell:
    """Train a model, prune it for each task and write `cell.json`; a stopped call is resumed.

    A failure is written to `failed.json` and reported as a warning.

    Args:
        point: the model.
        study: the settings of all models.
        tasks: the tasks to prune for.
        out: the study's folder.
        data: the text that every model is trained on.
        progress: show progress on standard error.
        bigram_loss: held-out loss of the bigram table alone on the same batches, nats per token.

    Returns:
        The cell: `name, kind, width, l0_count, act_fraction, steps, seed`, the metrics of its
        `Run`, `n_weights, n_nonzero, fingerprint`, `lr`, `lr_sweep` (of `sweep_rates`, if there is
        one), `multiply_adds` (of training), `bigram_loss`, `tasks` (rows of `prune_all`), `data`,
        `machine`, `settings`; after a failure its place in the grid and `error`.

    Raises:
        UnreadableError: the system failed to read a file.
        Interrupted: a signal came during training.
    """
    folder = cell_folder(out, point.name)
    try:
        record_text(folder / "run", data, settings_of(point, study, out).data, replace=False)
        sweep = sweep_rates(point, study, out, data, progress)
        trained = _trained_cell(point, study, tasks, out, sweep, progress)
        cell = trained | {"data": data.fingerprint, "bigram_loss": bigram_loss}
        write_record(folder / "cell.json", cell)
    except (DiskFullError, UnreadableError):
        raise
    except (
        InputError,
        RuntimeError,
        MemoryError,
    ) as error:  # out of memory is either of the last two
        return failed_cell(point, out, error)
    (folder / "failed.json").unlink(missing_ok=True)
    return cell


def circuits_at(
    target: float, config: PruneConfig, tasks: Sequence[Task], folder: Path, progress: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of `prune_all` for a cell's model at a target loss; finished ones are read.

    Args:
        target: target loss, nats.
        config: the other settings of the search.
        tasks: the tasks to prune for.
        folder: the cell's folder, with its finished run.
        progress: show a bar on standard error.
    """
    path = folder / "circuits" / f"{target:g}.json"
    config = config.model_copy(update={"target_loss": target})
    model = load(folder / "run")
    wanted = {**recorded_search(config, tasks), "model": model.fingerprint}
    if is_file(path):
        stored = read_record(path, {"settings": dict, "tasks": list})
        if are_same(stored["settings"], wanted):
            return with_kept_edges(stored["tasks"])
    rows = prune_all(model, tasks, folder / "circuits" / f"{target:g}", config, progress=progress)
    write_record(path, {"tasks": rows, "settings": wanted})
    return rows


def _trained_cell(
    point: FrontierPoint,
    study: FrontierConfig,
    tasks: Sequence[Task],
    out: Path,
    sweep: Sweep | None,
    progress: bool,
) -> Cell:
    folder = cell_folder(out, point.name)
    is_resumed = is_file(folder / "run" / "config.yaml")
    training = settings_of(point, study, out, lr=None if sweep is None else sweep["setting"])
    run = train(training, resume=is_resumed, progress=progress)
    config = study.prune
    rows = circuits_at(config.target_loss, config, tasks, folder, progress) if tasks else []
    return {
        **point_fields(point),
        **run.metrics,
        **_counts(run.model),
        "lr": training.optimizer.lr,
        **({} if sweep is None else {"lr_sweep": sweep}),
        "multiply_adds": training_multiply_adds(training, run.model.config),
        "tasks": rows,
        "machine": machine_facts(),
        "settings": _recorded_settings(point, study, tasks, out),
    }


def point_fields(point: FrontierPoint) -> Cell:
    """Return the fields of a point: its name and its place in the grid."""
    names = ("name", "kind", "width", "l0_count", "act_fraction", "steps", "seed")
    return {name: getattr(point, name) for name in names}


def _counts(model: Model) -> dict[str, Any]:
    n_weights, nonzero = model.transformer.weight_counts()
    return {"n_weights": n_weights, "n_nonzero": nonzero, "fingerprint": model.fingerprint}


def _recorded_settings(
    point: FrontierPoint, study: FrontierConfig, tasks: Sequence[Task], out: Path
) -> dict[str, Any]:
    """Return the settings that a cell's content depends on."""
    return {
        "train": portable(settings_of(point, study, out)),
        **({"lr_sweep": recorded_sweep(point, study)} if study.lrs else {}),
        **recorded_search(study.prune, tasks),
    }


def recorded_search(config: PruneConfig, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return the settings of the searches of a cell, and hashes of its pairs and their split."""
    return {
        "prune": config.recorded(),
        "tasks": {task.name: fingerprint(task) for task in tasks},
        "split": {
            task.name: split_fingerprint(task, config.eval_pairs, config.seed) for task in tasks
        },
    }


def are_same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether two records of settings are equal; those of earlier versions lack `split`."""
    return {"split": wanted["split"], **stored} == wanted


def failed_cell(point: FrontierPoint, out: Path, error: Exception) -> Cell:
    """Write `failed.json` and warn; an unexpected error is written with its traceback."""
    return failure(point_fields(point), cell_folder(out, point.name), error)


def failure(about: Cell, folder: Path, error: Exception) -> Cell:
    """Write `failed.json` of a model and warn; an unexpected error is written with its traceback.

    Args:
        about: what identifies the model; with a `name`.
        folder: the model's folder.
        error: why it failed.

    Returns:
        `about` and the `error`, in words.
    """
    message = redact(" ".join(str(error).split())) or type(error).__name__
    is_input_error = isinstance(error, InputError)
    trace_lines = (
        [] if is_input_error else [redact(line) for line in traceback.format_exception(error)]
    )
    trace = {"traceback": trace_lines} if trace_lines else {}
    cell = {**about, "error": message}
    write_json(folder / "failed.json", {**cell, **trace})
    warn(f"{about['name']} failed, the study goes on: {message}")
    return cell
