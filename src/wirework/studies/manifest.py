"""Manifest of a study: settings, seeds, versions and machine, enough to run it again."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from wirework.config import FrontierConfig, TrainConfig
from wirework.errors import DamagedError, InputError, UnreadableError
from wirework.files import is_file, read_record
from wirework.studies.points import CELLS, FrontierPoint, portable, settings_of
from wirework.training.run_folder import read_settings

_FACTS = ("wirework", "python", "torch", "numpy", "device", "instructions", "threads")


@cache
def machine_facts() -> dict[str, Any]:
    """Return the facts that affect a run's numbers: versions, processor or accelerator, threads."""
    from wirework.doctor import examine

    facts = examine()
    return {name: facts[name] for name in _FACTS}


def manifest(study: FrontierConfig, points: Sequence[FrontierPoint], out: Path) -> dict[str, Any]:
    """Return the settings of the study and of each of its points.

    Args:
        study: the settings of the study.
        points: the grid and any further models.
        out: the study's folder.

    Returns:
        JSON. `config` can be read as a `FrontierConfig`. `points[i]["train"]` are the settings of a
        `TrainConfig` without paths; once the run has begun, `auto` device and precision are
        resolved; impossible settings give `error` instead. A finished point also has `machine` and
        `data` (fingerprint of tokeniser and tokens).
    """
    return {
        "study": "frontier",
        "config": {**study.recorded(), "train": _shared_settings(study.train)},
        "points": [_entry(point, study, out) for point in points],
    }


def _shared_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings shared by all models, without those that follow from the width."""
    values = portable(config)
    for name in {"n_head", "d_mlp"} - config.model.model_fields_set:
        del values["model"][name]
    return values


def _entry(point: FrontierPoint, study: FrontierConfig, out: Path) -> dict[str, Any]:
    place = f"{CELLS}/{point.name}"
    entry = {"name": point.name, "kind": point.kind, "seed": point.seed, "files": place}
    stored, cell = out / place / "run" / "config.yaml", out / place / "cell.json"
    try:
        config = settings_of(point, study, out)
        if is_file(stored):
            config = read_settings(stored.parent)
    except UnreadableError:
        raise
    except InputError as error:
        return {**entry, "error": str(error)}
    cell_record = {}
    with suppress(DamagedError):  # reported when this model is read
        cell_record = read_record(cell) if is_file(cell) else {}
    extra: dict[str, Any] = {
        name: cell_record[name] for name in ("machine", "data") if name in cell_record
    }
    return {**entry, "train": portable(config), **extra}
