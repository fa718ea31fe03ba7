"""One training choice changed at a time: held-out loss and circuit size of each.

The study's folder holds `manifest.json`, `results.json`, `table.md` and `ablations.png` (all
small), `cells/CHOICE-seedN/` (run, circuits and `cell.json`) and `data/`. A stopped call is
resumed; further choices and seeds may be added. Source: Gao et al. 2025, App. A, Figs. 13 to 30.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wirework.config import AblationsConfig, TrainConfig
from wirework.console import Progress, counted, say
from wirework.data import Prepared, record_text, text_for_runs
from wirework.errors import DiskFullError, InputError, UnreadableError
from wirework.files import (
    check_place,
    is_file,
    names_in,
    read_record,
    write_record,
    write_text,
)
from wirework.leftovers import clear_held
from wirework.locks import locked
from wirework.studies.ablation_choices import (
    BASE,
    Settings,
    changed_settings,
    chosen,
    described,
)
from wirework.studies.ablation_rows import ChoiceRow, choice_rows, markdown_table
from wirework.studies.cell import are_same, circuits_at, failure, recorded_search
from wirework.studies.manifest import machine_facts
from wirework.studies.points import CELLS, portable
from wirework.summaries import Report
from wirework.tasks import PYTHON_TASKS, Task, check_names, load_task
from wirework.training import train
from wirework.view import write_ablations_figure

_KIND = "ablations"
_NEEDED = {"choice": str, "seed": int, "settings": dict, "tasks": list, "val_loss": float}
"""Required keys of `cell.json` and their types."""


@dataclass(frozen=True)
class ChoicePoint:
    """A model of the study."""

    choice: str
    seed: int
    values: Settings
    """Changed settings by dotted name."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.choice}-seed{self.seed}"


@dataclass(frozen=True, repr=False)
class AblationsResult(Report):
    """Table of the study, and paths of its files."""

    rows: tuple[ChoiceRow, ...]
    """One per choice, the base model first."""
    figure: str
    results: str


def points(study: AblationsConfig) -> list[ChoicePoint]:
    """Return all models, the base model first, every seed of a choice before the next choice.

    Raises:
        InputError: there is no such choice.
    """
    named = chosen(study.train, study.only)
    return [
        ChoicePoint(name, seed, values) for name, values in named.items() for seed in study.seeds
    ]


def training_settings(point: ChoicePoint, study: AblationsConfig, out: str | Path) -> TrainConfig:
    """Return the training settings of a model, whose run lies in `cells/NAME/run` below `out`.

    Raises:
        InputError: no model can have these settings.
    """
    out = Path(out)
    place: dict[str, Any] = {
        "name": "run", "runs": str(out / CELLS / point.name), "seed": point.seed,
        "data.cache": str(out / "data"),
    }  # fmt: skip
    return changed_settings(study.train, {**point.values, **place}, point.name)


def ablations(study: AblationsConfig, out: str | Path, progress: bool = True) -> AblationsResult:
    """Run the study, or resume it, and draw its figure.

    Args:
        study: the base model, the choices and the search for circuits.
        out: the study's folder.
        progress: show progress on standard error.

    Raises:
        InputError: an unknown choice or task; impossible settings; `out` cannot be written to,
            holds other files or is in use; the text has changed; the base model failed.
        Interrupted: a signal came during training; all finished work is saved.
    """
    out = Path(out)
    models = points(study)
    for point in models:
        training_settings(point, study, out)
    names = study.tasks or tuple(PYTHON_TASKS)
    check_names(names)
    _check_out(out)
    tasks = [load_task(name) for name in names]
    with locked(out / "lock", f"study {out}"):
        clear_held([out, *out.glob(f"{CELLS}/*"), *out.glob(f"{CELLS}/*/circuits")])
        write_record(out / "manifest.json", _manifest(study, models, names))
        cells = _cells(study, models, tasks, out, progress)
        rows = choice_rows(cells)
        if rows[0].val_loss is None:
            raise InputError(f"every base model failed: {rows[0].error}")
        results = {
            "study": _KIND,
            "target_loss": study.prune.target_loss,
            "rows": [row.to_dict() for row in rows],
            "cells": [_shown(cell) for cell in cells],
        }
        write_record(out / "results.json", results)
        write_text(out / "table.md", markdown_table(rows))
        figure = write_ablations_figure(out)
    return AblationsResult(tuple(rows), str(figure), str(out / "results.json"))


def _check_out(out: Path) -> None:
    check_place(out / "manifest.json")
    there = names_in(out) - {"lock"}
    earlier = read_record(out / "manifest.json", unsigned=True) if "manifest.json" in there else {}
    if there and earlier.get("study") != _KIND:
        raise InputError(f"{out} holds files but is no study of ablations: choose another --out")


def _manifest(
    study: AblationsConfig, models: Sequence[ChoicePoint], names: Sequence[str]
) -> dict[str, Any]:
    return {
        "study": _KIND,
        "config": {**study.recorded(), "train": portable(study.train)},
        "tasks": list(names),
        "machine": machine_facts(),
        "models": [
            {"name": point.name, "choice": point.choice, "seed": point.seed}
            | {"changes": dict(point.values), "files": f"{CELLS}/{point.name}"}
            for point in models
        ],
    }


def _cells(
    study: AblationsConfig,
    models: Sequence[ChoicePoint],
    tasks: Sequence[Task],
    out: Path,
    progress: bool,
) -> list[dict[str, Any]]:
    """Return the record of each model; missing ones are made."""
    finished = [_finished(point, study, tasks, out) for point in models]
    data = None
    cells = []
    with Progress("models", len(models), shown=progress, count=counted) as bar:
        for point, cell in zip(models, finished, strict=True):
            if cell is None:
                data = data or _text(study, out, [c for c in finished if c], progress)
                cell = _made(point, study, tasks, out, data, progress)
                bar.advance()
            else:
                bar.skip()
            cells.append(cell)
            if progress:
                loss = cell.get("val_loss")
                outcome = cell["error"] if loss is None else f"held-out loss {loss:.4f}"
                say(f"{point.name}: {outcome}")
    return cells


def _finished(
    point: ChoicePoint, study: AblationsConfig, tasks: Sequence[Task], out: Path
) -> dict[str, Any] | None:
    """Return the content of `cell.json` if it has these settings and tasks, else None."""
    path = out / CELLS / point.name / "cell.json"
    if not is_file(path):
        return None
    cell = read_record(path, _NEEDED)
    return cell if are_same(cell["settings"], _recorded(point, study, tasks, out)) else None


def _text(
    study: AblationsConfig, out: Path, cells: Sequence[dict[str, Any]], progress: bool
) -> Prepared:
    """Return the tokens that all models are trained on.

    Raises:
        InputError: they are not those of the finished models.
    """
    config = study.train.data.model_copy(update={"cache": out / "data"})
    expected = cells[0]["data"] if cells else ""
    data = text_for_runs(sorted((out / CELLS).glob("*/run")), config, progress, expected)
    if expected and data.fingerprint != expected:
        raise InputError(f"the text of {out} has changed since: choose another --out")
    return data


def _made(
    point: ChoicePoint,
    study: AblationsConfig,
    tasks: Sequence[Task],
    out: Path,
    data: Prepared,
    progress: bool,
) -> dict[str, Any]:
    """Train and prune a model and write `cell.json`; a failure is a record with `error`."""
    folder = out / CELLS / point.name
    config = training_settings(point, study, out)
    about = {"name": point.name, "choice": point.choice, "seed": point.seed}
    about["changes"] = described(study.train, point.values)
    try:
        record_text(folder / "run", data, config.data, replace=False)
        is_resumed = is_file(folder / "run" / "config.yaml")
        run = train(config, resume=is_resumed, progress=progress)
        target = study.prune.target_loss
        rows = circuits_at(target, study.prune, tasks, folder, progress) if tasks else []
    except (DiskFullError, UnreadableError):
        raise
    except (InputError, RuntimeError, MemoryError) as error:
        # Such as a loss that is not finite, or too little memory: a result of the choice.
        return failure(about, folder, error)
    (folder / "failed.json").unlink(missing_ok=True)
    cell = {
        **about,
        **run.metrics,
        "fingerprint": run.model.fingerprint,
        "tasks": rows,
        "data": data.fingerprint,
        "machine": machine_facts(),
        "settings": _recorded(point, study, tasks, out),
    }
    write_record(folder / "cell.json", cell)
    return read_record(folder / "cell.json", _NEEDED)


def _recorded(
    point: ChoicePoint, study: AblationsConfig, tasks: Sequence[Task], out: Path
) -> dict[str, Any]:
    """Return the settings that a cell's content depends on."""
    train_settings = portable(training_settings(point, study, out))
    return {"train": train_settings, **recorded_search(study.prune, tasks)}


def _shown(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell for `results.json`, without what the manifest has."""
    return {name: value for name, value in cell.items() if name not in ("settings", "machine")}


__all__ = ["BASE", "AblationsResult", "ChoicePoint", "ablations", "points", "training_settings"]
