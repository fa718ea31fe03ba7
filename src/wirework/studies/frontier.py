"""Circuit size against capability: train a grid, prune all of it, compare at equal loss, draw.

Below the study's folder: `manifest.json`, `results.json`, `token_losses.json` and the figures, all
small; `cells/` (see `cell.py`) and `data/`. A call that was stopped goes on, one after the end
only draws again. Source: Gao et al. 2025, Figs. 2, 3, 10, 33.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
    Row,
    best_match,
    compare,
    geometric_mean,
    matches,
    sizes_of,
    verdict,
)
from wirework.studies.manifest import manifest
from wirework.studies.points import CELLS, FrontierPoint, grid
from wirework.studies.token_losses import joint, token_losses
from wirework.tasks import BUILT_IN, Task, check_names, load_task
from wirework.training import Interrupted
from wirework.view import write_study_figures


def frontier(study: FrontierConfig, out: str | Path, progress: bool = True) -> dict[str, Any]:
    """Run a study, or go on with it, and draw its figures.

    Args:
        study: the grid and the settings of all its models.
        out: the study's folder.
        progress: show progress on standard error.

    Returns:
        `cells` (a flat row per model: name, held-out loss, weights, kurtosis, number of circuits,
        geometric mean of their edges, or the error), `verdict` (a sentence), `pair` (see
        `compare.best_match`), `figures` and `results` (paths).

    Raises:
        InputError: the grid is empty, a task unknown, `out` cannot be written to, holds something
            that is no study, or is in use; the text has changed since; every model failed.
        Interrupted: a signal came; what was done is saved.
    """
    out = Path(out)
    points = grid(study)
    names = study.tasks or tuple(BUILT_IN)
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
    return {
        "cells": [_row(cell) for cell in results["cells"] + results["failed"]],
        "verdict": results["verdict"],
        "pair": pair and {name: pair[name] for name in ("sparse", "dense", "apart", "ratio")},
        "figures": [str(path) for path in figures],
        "results": str(out / "results.json"),
    }


def _check_out(out: Path) -> None:
    check_place(out / "manifest.json")
    held = names_in(out) - {"lock"}
    if held and "manifest.json" not in held:
        raise InputError(f"{out} holds files but is no study: choose another --out")


@dataclass(frozen=True)
class _Study:
    """A study in progress; its folder is held by the caller."""

    config: FrontierConfig
    out: Path
    tasks: list[Task]
    points: list[FrontierPoint]
    stop: Stop
    progress: bool

    def results(self) -> dict[str, Any]:
        """Make what is missing, and return what the figures are drawn from."""
        self._write_manifest(self.points)
        with Progress("study", len(self.points), shown=self.progress, count=counted) as bar:
            made = [self._made(point, self.tasks, bar) for point in self.points]
        cells = [cell for cell in made if "error" not in cell]
        failed = [cell for cell in made if "error" in cell]
        if not cells:
            raise InputError(f"every model failed; {failed[0]['name']}: {failed[0]['error']}")
        found = matches(cells, self.config.match_within)
        pair = best_match(found)
        results = {
            "cells": [_shown(cell) for cell in cells],
            "failed": failed,
            "target_loss": self.config.prune.target_loss,
            "matches": found,
            "pair": pair,
            "verdict": verdict(pair, self.config.match_within),
        }
        return results | ({} if pair is None else self._of_pair(pair))

    def _of_pair(self, pair: Row) -> dict[str, Any]:
        """Prune a matched pair at all targets, train the dense one's twin, compare their tokens."""
        targets = sorted(set(self.config.target_losses), reverse=True)
        rows = [self._at_target(pair, target) for target in targets]
        dense = next(point for point in self.points if point.name == pair["dense"])
        twin = dense.twin(self.config.twin_seed)
        if twin == dense:
            twin = dense.twin(dense.seed + 1)
        with Progress("dense twin", shown=self.progress) as bar:
            cell = self._made(twin, [], bar)
        self._write_manifest([*self.points, twin])
        names = [pair["dense"], pair["sparse"], *([] if "error" in cell else [twin.name])]
        self._compare_tokens(names)
        return {"targets": rows, "twin": _shown(cell)}

    def _made(self, point: FrontierPoint, tasks: list[Task], bar: Progress) -> Cell:
        """Return a cell, from its file or made now."""
        try:
            known = finished_cell(point, self.config, tasks, self.out)
        except (DiskFullError, UnreadableError):
            raise
        except InputError as error:
            return failed_cell(point, self.out, error)
        if known is not None:
            bar.skip()
            return known
        if self.progress:
            say(point.name)
        data = self.data
        with self._stoppable(point.name):
            cell = run_cell(point, self.config, tasks, self.out, data, self.progress)
        bar.advance()
        return cell

    def _at_target(self, pair: Row, target: float) -> dict[str, Any]:
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
        return {"target_loss": target, **compare(sparse, dense), **sizes}

    def _compare_tokens(self, names: Sequence[str]) -> None:
        """Write the joint histograms of the first model's token losses with each of the others'."""
        path = self.out / "token_losses.json"
        cells = [read_cell(self.out, name) for name in names]
        of = {cell["name"]: cell["fingerprint"] for cell in cells}
        if is_file(path) and read_record(path, unsigned=True).get("of") == of:
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
        write_record(path, {"of": of, "joints": joints})

    @cached_property
    def data(self) -> Prepared:
        """The tokens that all models are trained and judged on; looked at when first needed."""
        trained_on: dict[str, str] = {}
        for path in sorted((self.out / CELLS).glob("*/cell.json")):
            name = path.parent.name
            with suppress(DamagedError):  # it is told of when its turn comes
                trained_on[name] = read_cell(self.out, name)["data"]
        with self._stoppable("the preparation of the text"):
            config = self.config.train.data.model_copy(update={"cache": self.out / "data"})
            runs = sorted((self.out / CELLS).glob("*/run"))
            before = next(iter(trained_on.values()), "")
            data = text_for_runs(runs, config, self.progress, before)
        for name, fingerprint in trained_on.items():
            if fingerprint != data.fingerprint:
                raise InputError(
                    f"the text is another than when {name} was trained: give another --out"
                )
        return data

    def _write_manifest(self, points: Sequence[FrontierPoint]) -> None:
        write_record(self.out / "manifest.json", manifest(self.config, points, self.out))

    @contextmanager
    def _stoppable(self, what: str) -> Iterator[None]:
        """Leave by a signal at once, or as training does where it is at work; never nested."""
        said = f"stopped in {what} of {self.out}; the same command goes on from what was saved"
        try:
            with self.stop.at_once(said):
                yield
        except Interrupted as signal:
            raise Interrupted(signal.number, said) from None


def _shown(cell: Cell) -> Cell:
    """Return what results hold of a cell, with its mean size; its settings are in the manifest."""
    sizes = sizes_of(cell.get("tasks", []))
    kept = {name: value for name, value in cell.items() if name not in ("settings", "machine")}
    return kept | {"n_circuits": len(sizes), "edges": geometric_mean(sizes.values())}


def _row(cell: Cell) -> dict[str, Any]:
    """Return a cell's line in the table."""
    names = ("name", "val_loss", "n_weights", "n_nonzero", "kurtosis", "n_circuits", "edges")
    return {name: cell.get(name) for name in (*names, "error")}
