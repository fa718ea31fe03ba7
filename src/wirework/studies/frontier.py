"""Circuit size against capability: train a grid, prune each model, compare at equal loss, draw.

The study's folder holds `manifest.json`, `results.json`, `token_losses.json` and the figures (all
small), `cells/` (see `cell.py`) and `data/`. A stopped call is resumed; a call on a finished study
only draws the figures again. Source: Gao et al. 2025, Figs. 2, 3, 10, 33.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from wirework.config import FrontierConfig
from wirework.console import Progress, counted, say
from wirework.data import Prepared, eval_batches, text_for_runs
from wirework.errors import DamagedError, DiskFullError, InputError, UnreadableError
from wirework.files import check_place, is_file, names_in, read_record, write_record
from wirework.leftovers import clear_held
from wirework.locks import locked
from wirework.model import load
from wirework.signals import Stop, stopping
from wirework.studies.cell import (
    Cell,
    cell_folder,
    circuits_at,
    failed_cell,
    finished_cell,
    read_cell,
    run_cell,
)
from wirework.studies.compare import (
    JsonRow,
    best_match,
    compare_all,
    match_verdict,
    matches,
    mean_sizes,
    sizes_of,
)
from wirework.studies.manifest import manifest
from wirework.studies.points import CELLS, FrontierPoint, grid
from wirework.studies.token_losses import joint, token_losses
from wirework.summaries import Report, absent
from wirework.tasks import PYTHON_TASKS, Task, check_names, load_task
from wirework.training import Interrupted
from wirework.view import write_study_figures


@dataclass(frozen=True, repr=False)
class FrontierRow(Report):
    """A model of the grid; a failed one has only a name and an error."""

    name: str
    val_loss: float | None
    """Held-out loss, nats per token."""
    n_weights: int | None
    n_nonzero: int | None
    log_kurtosis: float | None
    """log(mean over channels of the kurtosis over tokens) of the final residual stream; None for a
    model of an earlier version."""
    n_circuits: int | None
    """Tasks with a circuit that reaches the target loss."""
    edges: float | None
    """Geometric mean of `n_edges` over these circuits."""
    kept_edges: float | None
    """The same of `n_kept_edges`."""
    paper_edges: float | None
    """The same of the edges at plain bisection, as in the paper."""
    error: str | None
    kurtosis: float | None = absent()
    """Kurtosis of the final residual stream, pooled over channels, as earlier versions report it.
    """


@dataclass(frozen=True, repr=False)
class FrontierPair(Report):
    """The sparse and the dense model that are compared (`compare.best_match`)."""

    sparse: str
    dense: str
    apart: float
    """Difference of the held-out losses, as a share of the dense one."""
    ratio: float | None
    """Dense edges over sparse edges, geometric means over common tasks; None if there are none."""
    kept_ratio: float | None
    """The same of kept edges."""
    paper_ratio: float | None
    """The same of the edges at plain bisection, as in the paper."""


@dataclass(frozen=True, repr=False)
class FrontierResult(Report):
    """Table of the study, its verdict, and paths of its files."""

    cells: tuple[FrontierRow, ...]
    verdict: str
    """One sentence."""
    pair: FrontierPair | None
    figures: tuple[str, ...]
    results: str


def frontier(study: FrontierConfig, out: str | Path, progress: bool = True) -> FrontierResult:
    """Run the study, or resume it, and draw its figures.

    Args:
        study: the grid and the settings of all its models.
        out: the study's folder.
        progress: show progress on standard error.

    Raises:
        InputError: the grid is empty; a task is unknown; `out` cannot be written to, holds other
            files or is in use; the text has changed; every model failed.
        Interrupted: a signal came; all finished work is saved.
    """
    out = Path(out)
    points = grid(study)
    names = study.tasks or tuple(PYTHON_TASKS)
    check_names(names)
    _check_out(out)
    tasks = [load_task(name) for name in names]
    with locked(out / "lock", f"study {out}"), stopping() as stop:
        clear_held([out, *out.glob(f"{CELLS}/*"), *out.glob(f"{CELLS}/*/circuits")])
        results = _Study(study, out, tasks, points, stop, progress).results()
        write_record(out / "results.json", results)
        figures = write_study_figures(out)
        stop.leave_if_requested(f"stopped after the end: {out} is finished")
    pair = results["pair"]
    return FrontierResult(
        cells=tuple(_row(cell) for cell in results["cells"] + results["failed"]),
        verdict=results["verdict"],
        pair=None if pair is None else _pair(pair),
        figures=tuple(str(path) for path in figures),
        results=str(out / "results.json"),
    )


def _check_out(out: Path) -> None:
    check_place(out / "manifest.json")
    names_there = names_in(out) - {"lock"}
    if names_there and "manifest.json" not in names_there:
        raise InputError(f"{out} holds files but is no study: choose another --out")


@dataclass(frozen=True)
class _Study:
    """A study in progress; the caller holds the lock of its folder."""

    config: FrontierConfig
    out: Path
    tasks: list[Task]
    points: list[FrontierPoint]
    stop: Stop
    progress: bool

    def results(self) -> dict[str, Any]:
        """Train and prune the missing models, and return the content of `results.json`."""
        self._write_manifest(self.points)
        with Progress("study", len(self.points), shown=self.progress, count=counted) as bar:
            all_cells = [self._made(point, self.tasks, bar) for point in self.points]
        cells = [cell for cell in all_cells if "error" not in cell]
        failed = [cell for cell in all_cells if "error" in cell]
        if not cells:
            raise InputError(f"every model failed; {failed[0]['name']}: {failed[0]['error']}")
        pairs = matches(cells, self.config.match_within)
        pair = best_match(pairs)
        results = {
            "cells": [_shown(cell) for cell in cells],
            "failed": failed,
            "target_loss": self.config.prune.target_loss,
            "matches": pairs,
            "pair": pair,
            "verdict": match_verdict(pair, self.config.match_within),
        }
        return results | ({} if pair is None else self._of_pair(pair))

    def _of_pair(self, pair: JsonRow) -> dict[str, Any]:
        """Prune a pair at all target losses, train the dense model again, compare token losses."""
        targets = sorted(set(self.config.target_losses), reverse=True)
        rows = [self._at_target(pair, target) for target in targets]
        dense = next(point for point in self.points if point.name == pair["dense"])
        reseeded = dense.with_seed(self.config.twin_seed)
        if reseeded == dense:
            reseeded = dense.with_seed(dense.seed + 1)
        with Progress("dense model, second seed", shown=self.progress) as bar:
            cell = self._made(reseeded, [], bar)
        self._write_manifest([*self.points, reseeded])
        names = [pair["dense"], pair["sparse"], *([] if "error" in cell else [reseeded.name])]
        self._compare_tokens(names)
        return {"targets": rows, "twin": _shown(cell)}

    def _made(self, point: FrontierPoint, tasks: list[Task], bar: Progress) -> Cell:
        """Return a cell, read from its file or made now."""
        try:
            finished = finished_cell(point, self.config, tasks, self.out)
        except (DiskFullError, UnreadableError):
            raise
        except InputError as error:
            return failed_cell(point, self.out, error)
        if finished is not None:
            bar.skip()
            return finished
        if self.progress:
            say(point.name)
        data = self.data
        with self._stoppable(point.name):
            cell = run_cell(point, self.config, tasks, self.out, data, self.progress)
        bar.advance()
        return cell

    def _at_target(self, pair: JsonRow, target: float) -> dict[str, Any]:
        """Compare a pair's circuits at a target loss."""
        with self._stoppable(f"target {target:g}"):
            sparse, dense = (
                circuits_at(
                    target,
                    self.config.prune,
                    self.tasks,
                    cell_folder(self.out, pair[kind]),
                    self.progress,
                )
                for kind in ("sparse", "dense")
            )
        sizes = {"sparse_sizes": sizes_of(sparse), "dense_sizes": sizes_of(dense)}
        return {"target_loss": target, **compare_all(sparse, dense), **sizes}

    def _compare_tokens(self, names: Sequence[str]) -> None:
        """Write joint histograms of token losses: the first model with each of the others."""
        path = self.out / "token_losses.json"
        cells = [read_cell(self.out, name) for name in names]
        fingerprints = {cell["name"]: cell["fingerprint"] for cell in cells}
        if is_file(path) and read_record(path, unsigned=True).get("of") == fingerprints:
            return
        common = self.config.train
        batches = eval_batches(
            self.data.val, common.model.n_ctx, common.batch_size, common.eval_batches
        )
        with (
            self._stoppable("the comparison of token losses"),
            Progress("token losses", None, shown=self.progress),
        ):
            models = [load(cell_folder(self.out, name) / "run") for name in names]
            first, *others = [token_losses(model, batches) for model in models]
        joints = [
            {"first": cells[0]["name"], "second": cell["name"], "kind": cell["kind"]}
            | joint(first, losses)
            for cell, losses in zip(cells[1:], others, strict=True)
        ]
        write_record(path, {"of": fingerprints, "joints": joints})

    @cached_property
    def data(self) -> Prepared:
        """The tokens that all models are trained and evaluated on, prepared at the first use."""
        trained_on: dict[str, str] = {}
        for path in sorted((self.out / CELLS).glob("*/cell.json")):
            name = path.parent.name
            with suppress(DamagedError):  # reported later, when this model is read
                trained_on[name] = read_cell(self.out, name)["data"]
        with self._stoppable("the preparation of the text"):
            config = self.config.train.data.model_copy(update={"cache": self.out / "data"})
            runs = sorted((self.out / CELLS).glob("*/run"))
            expected_fingerprint = next(iter(trained_on.values()), "")
            data = text_for_runs(runs, config, self.progress, expected_fingerprint)
        for name, fingerprint in trained_on.items():
            if fingerprint != data.fingerprint:
                raise InputError(
                    f"the text has changed since {name} was trained: choose another --out"
                )
        return data

    def _write_manifest(self, points: Sequence[FrontierPoint]) -> None:
        write_record(self.out / "manifest.json", manifest(self.config, points, self.out))

    @contextmanager
    def _stoppable(self, work: str) -> Iterator[None]:
        """Leave at once on a signal, or as training does while it runs; never nested."""
        message = f"stopped in {work} of {self.out}; the same command goes on from what was saved"
        try:
            with self.stop.at_once(message):
                yield
        except Interrupted as signal:
            raise Interrupted(signal.number, message) from None


def _shown(cell: Cell) -> Cell:
    """Return a cell for `results.json`: its mean size added, its settings left to the manifest."""
    rows = cell.get("tasks", [])
    kept = {name: value for name, value in cell.items() if name not in ("settings", "machine")}
    n_circuits = sum(bool(row.get("reached")) for row in rows)
    return kept | {"n_circuits": n_circuits, **mean_sizes(rows)}


def _pair(pair: JsonRow) -> FrontierPair:
    """Return a pair of `matches` as it is returned."""
    return FrontierPair(
        sparse=pair["sparse"],
        dense=pair["dense"],
        apart=pair["apart"],
        ratio=pair["ratio"],
        kept_ratio=pair["kept"]["ratio"],
        paper_ratio=pair["paper"]["ratio"],
    )


def _row(cell: Cell) -> FrontierRow:
    """Return a cell's row in the returned table."""
    values: dict[str, Any] = {column.name: cell.get(column.name) for column in fields(FrontierRow)}
    return FrontierRow(**values)
