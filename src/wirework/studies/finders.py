"""Circuit size against target loss for each finder (Gao et al. 2025, Fig. 31).

The study's folder holds `manifest.json` (model, settings), `finders.json`, `finders.png`,
`faithfulness.png` and `circuits/FINDER/TARGET/TASK`. A stopped call is resumed. The paper's
baseline is a score with bisection alone; the same score with our clean-up is a line of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.circuits import METHODS, prune_all
from wirework.circuits.masking.ablation_baseline import AblationBaseline
from wirework.circuits.pipeline.prune_all import check_distinct
from wirework.circuits.pruning.feasibility import check_chance
from wirework.config import PruneConfig
from wirework.console import Progress, counted, say
from wirework.errors import InputError
from wirework.files import check_place, locked, names_in, read_record, write_record
from wirework.leftovers import clear_held
from wirework.model import load
from wirework.renamed_names import old_arguments
from wirework.studies.compare import geometric_mean, sizes_of
from wirework.studies.finder_curves import LEARNED, CurveMaker, FinderCurve
from wirework.summaries import Report
from wirework.tasks import Task, load_task
from wirework.view import write_faithfulness_figure, write_finders_figure

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model

CLEANED = "+ clean-up"

_MANIFEST = "manifest.json"

FINDERS = (
    "learned",
    *METHODS,
    *(f"{method} {CLEANED}" for method in METHODS if method != "random"),
)
"""Lines of the figure: learned masks with all steps of `prune`, each score with bisection alone,
and each score with clean-up. `random` has no clean-up: bisection keeps nearly all nodes, and
their clean-up takes hours."""

_SET_BY_STUDY = {"finder", "extra_rankings", "target_loss", "clean_up", "prune_edges"}

TARGETS = (0.5, 0.3, 0.15, 0.05)


@dataclass(frozen=True, repr=False)
class FinderRow(Report):
    """Mean sizes of a finder's circuits at a target loss.

    Means are over the tasks for which every finder of the study has a circuit at that target; None
    if there is no such task.
    """

    finder: str
    target_loss: float
    """Nats."""
    n_tasks: int
    edges: float | None
    """Geometric mean of `n_edges`."""
    kept_edges: float | None
    """Geometric mean of `n_kept_edges`."""
    nodes: float | None
    """Geometric mean."""
    held_out: float | None
    """Mean task loss on held-out pairs, nats."""
    paper_edges: float | None
    """Geometric mean of the edges at plain bisection of the same ranking, as in the paper; None
    unless all circuits have recorded it."""
    paper_nodes: float | None
    """Geometric mean of the nodes there."""
    paper_held_out: float | None
    """Mean task loss on held-out pairs there, nats."""
    cpr: float | None = None
    """Mean area under the faithfulness curve of the finder's ranking; higher is better. A score
    with clean-up has that of the score. None unless every task has a curve."""
    cmd: float | None = None
    """Mean area between that curve and 1; lower is better."""


@dataclass(frozen=True, repr=False)
class FindersResult(Report):
    """Table of the study and paths of its files."""

    rows: tuple[FinderRow, ...]
    """One per finder and target loss."""
    results: str
    figure: str | None
    """None if there is no circuit."""
    curves: tuple[FinderCurve, ...] = ()
    """One per ranking and task."""
    curves_figure: str | None = None
    """None if there is no curve."""


@old_arguments(which="finders")
def finders(
    model: "Model | str | Path",
    tasks: Sequence[Task | str | Path],
    out: str | Path,
    config: PruneConfig | None = None,
    *,
    finders: Iterable[str] = FINDERS,
    targets: Iterable[float] = TARGETS,
    data: "Tokens | None" = None,
    progress: bool = True,
) -> FindersResult:
    """Find circuits of the same tasks with each finder, and draw their sizes.

    Args:
        model: with a tokeniser; a path is loaded.
        tasks: tasks, or anything that `ww.task` takes. A task that the model itself cannot do at a
            target loss is left out at that target.
        out: the study's folder.
        config: settings of the search; the study sets finder, target and clean-up.
        finders: names of `FINDERS`.
        targets: target losses, nats.
        data: training text for the means, as `prune` takes it.
        progress: show progress on standard error.

    Raises:
        InputError: an unknown finder; a setting that the study sets itself; a target at or below 0
            or above chance; the folder cannot be written to, is in use or holds other files.
    """
    out, finders = Path(out), tuple(dict.fromkeys(finders))
    targets = tuple(sorted(map(float, set(targets)), reverse=True))
    for name in finders:
        if name not in FINDERS:
            raise InputError(f"no finder {name!r}; finders are {', '.join(FINDERS)}")
    config = config or PruneConfig()
    if owned_settings := _SET_BY_STUDY & config.model_fields_set:
        raise InputError(f"the study sets {', '.join(sorted(owned_settings))} itself: leave it out")
    planned = {
        (name, target): _settings(config, name, target) for target in targets for name in finders
    }
    for settings in planned.values():
        check_chance(settings)
    _check_out(out)
    model, loaded_tasks = load(model), [load_task(task) for task in tasks]
    names = [task.name for task in loaded_tasks]
    check_distinct(names)
    with (
        locked(out / "lock", f"study {out}"),
        Progress("study", len(planned), shown=progress, count=counted) as bar,
    ):
        study_manifest: dict[str, Any] = {
            "study": "finders",
            "model": model.fingerprint,
            "tasks": names,
        }
        study_manifest |= {"finders": finders, "targets": targets, "config": config.recorded()}
        clear_held([out, *out.glob("circuits/*/*")])
        write_record(out / _MANIFEST, study_manifest)
        rows_by_run: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for (name, target), settings in planned.items():
            if progress:
                say(f"{name}, target {target:g}")
            folder = _folder(out, name, target)
            rows_by_run[name, target] = prune_all(
                model, loaded_tasks, folder, settings, data=data, progress=progress
            )
            bar.advance()
        done = {row["task"] for rows in rows_by_run.values() for row in rows if row.get("reached")}
        solved = [task for task in loaded_tasks if task.name in done]
        curves = _curves(model, solved, out, config, planned, data)
        rows = [
            _row(name, target, rows_by_run, finders, curves)
            for name in finders
            for target in targets
        ]
        result = {
            "model": model.fingerprint,
            "tasks": names,
            "rows": [row.to_dict() for row in rows],
            "curves": [curve.to_dict() for curve in curves],
        }
        write_record(out / "finders.json", result)
        has_circuits = any(row.edges is not None for row in rows)
        figure = str(write_finders_figure(out)) if has_circuits else None
        curves_figure = str(write_faithfulness_figure(out)) if curves else None
    return FindersResult(
        tuple(rows), str(out / "finders.json"), figure, tuple(curves), curves_figure
    )


def _folder(out: Path, name: str, target: float) -> Path:
    return out / "circuits" / name.replace(" ", "_") / str(target)


def _curves(
    model: "Model",
    tasks: Sequence[Task],
    out: Path,
    config: PruneConfig,
    planned: dict[tuple[str, float], PruneConfig],
    data: "Tokens | None",
) -> list[FinderCurve]:
    """Return the faithfulness curves of all rankings of a study."""
    maker = CurveMaker(model, AblationBaseline.of(model, data, config))
    folders = {target: _folder(out, LEARNED, target) for _, target in planned}
    settings = list(planned.values())
    return [curve for task in tasks for curve in maker.curves(task, folders, settings)]


def _check_out(out: Path) -> None:
    check_place(out / _MANIFEST)
    names_there = names_in(out) - {"lock"}
    earlier = read_record(out / _MANIFEST, unsigned=True) if _MANIFEST in names_there else {}
    if names_there and earlier.get("study") != "finders":
        raise InputError(f"{out} holds files but is no study of finders: choose another --out")


def _settings(config: PruneConfig, name: str, target: float) -> PruneConfig:
    method = name.removesuffix(f" {CLEANED}")
    has_clean_up = name == "learned" or name != method
    changes = {"finder": method, "target_loss": target, "extra_rankings": ()}
    changes |= {"clean_up": has_clean_up, "prune_edges": has_clean_up}
    return PruneConfig.of({**config.model_dump(), **changes})


def _row(
    name: str,
    target: float,
    rows_by_run: dict[tuple[str, float], list[dict[str, Any]]],
    finders: Sequence[str],
    curves: Sequence[FinderCurve],
) -> FinderRow:
    """Return a finder's mean sizes at a target, over the tasks that all finders solve there."""
    counts = (sizes_of(rows_by_run[other, target], "n_kept_edges") for other in finders)
    shared = set.intersection(*map(set, counts))
    rows = [row for row in rows_by_run[name, target] if row["task"] in shared]
    method = name.removesuffix(f" {CLEANED}")
    own = [
        curve
        for curve in curves
        if curve.task in shared
        and (curve.finder, curve.target_loss) in ((method, None), (method, target))
    ]
    own = own if len(own) == len(rows) else []
    papers = rows if all(row["paper_edges"] is not None for row in rows) else []
    return FinderRow(
        finder=name,
        target_loss=target,
        n_tasks=len(rows),
        edges=geometric_mean(row["n_edges"] for row in rows),
        kept_edges=geometric_mean(row["n_kept_edges"] for row in rows),
        nodes=geometric_mean(row["n_nodes"] for row in rows),
        held_out=_mean(row["held_out"] for row in rows),
        paper_edges=geometric_mean(row["paper_edges"] for row in papers),
        paper_nodes=geometric_mean(row["paper_nodes"] for row in papers),
        paper_held_out=_mean(row["paper_held_out"] for row in papers),
        cpr=_mean(curve.cpr for curve in own),
        cmd=_mean(curve.cmd for curve in own),
    )


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None
