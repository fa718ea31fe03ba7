"""What it takes to make every point of a study again: settings, seeds, versions, machine."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from wirework.config import FrontierConfig, TrainConfig
from wirework.errors import DamagedError, InputError, UnreadableError
from wirework.files import is_file, read_record
from wirework.studies.points import CELLS, FrontierPoint, portable, settings_of
from wirework.training.run import read_settings

_FACTS = ("wirework", "python", "torch", "numpy", "device", "instructions", "threads")


@cache
def machine() -> dict[str, Any]:
    """Return what bears on a run's numbers: versions, the processor or accelerator, threads."""
    from wirework.doctor import examine

    facts = examine()
    return {name: facts[name] for name in _FACTS}


def manifest(study: FrontierConfig, points: Sequence[FrontierPoint], out: Path) -> dict[str, Any]:
    """Return the study's settings, and each point's own.

    Args:
        study: as it was asked for.
        points: the grid, and what was trained beside it.
        out: the study's folder.

    Returns:
        JSON. `config` is a whole `FrontierConfig` again. `points[i]["train"]` are the settings of
        a `TrainConfig` but for places, with the device and precision that `auto` came to once the
        run has begun, or there is an `error` in its stead; `machine` and `data` (fingerprint of
        tokeniser and tokens) come with the cell.
    """
    return {
        "study": "frontier",
        "config": {**study.recorded(), "train": _common(study.train)},
        "points": [_entry(point, study, out) for point in points],
    }


def _common(config: TrainConfig) -> dict[str, Any]:
    """Return what all models have in common, without what follows from each one's width."""
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
    made = {}
    with suppress(DamagedError):  # its model's turn tells of it
        made = read_record(cell) if is_file(cell) else {}
    known: dict[str, Any] = {name: made[name] for name in ("machine", "data") if name in made}
    return {**entry, "train": portable(config), **known}
