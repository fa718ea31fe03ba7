"""Circuit size against capability: train a grid, prune each model, compare at equal loss, draw.

The study's folder holds `manifest.json`, `results.json`, `token_losses.json` and the figures (all
small), `cells/` (see `cell.py`) and `data/`. A stopped call is resumed; a call on a finished study
only draws the figures again. Source: Gao et al. 2025, Figs. 2, 3, 10, 33.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
from wirework.studies.attainable import check_attainable
from wirework.studies.cell import (
    Cell,
    cell_folder,
    circuits_at,
    failed_cell,
    finished_cell,
    read_cell,
    run_cell,
)
from wirework.studies.claims import COUNTS, FrontierClaim, claims, comparisons
from wirework.studies.compare import (
    JsonRow,
    best_match,
    compare_all,
    match_verdict,
    matches,
    sizes_of,
)
from wirework.studies.frontier_rows import (
    FrontierBudget,
    FrontierPair,
    FrontierResult,
    FrontierRow,
    FrontierSeed,
    pair_of,
    report_of,
    row_of,
    shown_cell,
)
from wirework.studies.manifest import manifest
from wirework.studies.pair_models import budget_point, budget_row, seed_row, seeds_verdict
from wirework.studies.points import CELLS, FrontierPoint, check_vocabulary, grid
from wirework.studies.token_losses import joint, token_losses
from wirework.tasks import PYTHON_TASKS, Task, check_names, load_task
from wirework.training import Interrupted, bigram_loss
from wirework.training.baseline import MAX_VOCAB
from wirework.view import write_study_figures


def frontier(study: FrontierConfig, out: str | Path, progress: bool = True) -> FrontierResult:
    """Run the study, or resume it, and draw its figures.

    Args:
        study: the grid and the settings of all its models.
        out: the study's folder.
        progress: show progress on standard error.

    Raises:
        InputError: the grid is empty; a floor keeps more weights than a model's L0; the tokeniser
            has another size than L0 was computed for; a task is unknown; `out` cannot be written
            to, holds other files or is in use; the text has changed; every model failed.
        Interrupted: a signal came; all finished work is saved.
    """
    out = Path(out)
    points = grid(study)
    names = study.tasks or tuple(PYTHON_TASKS)
    check_names(names)
    _check_out(out)
    check_attainable(points, study, out)
    tasks = [load_task(name) for name in names]
    with locked(out / "lock", f"study {out}"), stopping() as stop:
        clear_held([out, *out.glob(f"{CELLS}/*"), *out.glob(f"{CELLS}/*/circuits")])
        results = _Study(study, out, tasks, points, stop, progress).results()
        write_record(out / "results.json", results)
        figures = write_study_figures(out)
        stop.leave_if_requested(f"stopped after the end: {out} is finished")
    pair = results["pair"]
    return FrontierResult(
        cells=tuple(row_of(cell) for cell in results["cells"] + results["failed"]),
        verdict=results["verdict"],
        pair=None if pair is None else pair_of(pair),
        figures=tuple(str(path) for path in figures),
        results=str(out / "results.json"),
        claims=tuple(FrontierClaim(**claim) for claim in results["claims"]),
        seeds=tuple(report_of(FrontierSeed, row) for row in results.get("seeds", [])),
        budgets=tuple(report_of(FrontierBudget, row) for row in results.get("budgets", [])),
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
    extra_points: list[FrontierPoint] = field(default_factory=list)
    """Models beside the grid: those of further seeds and of equal budgets."""
    extra_cells: list[Cell] = field(default_factory=list)
    """Their cells, once they are trained and pruned."""

    def results(self) -> dict[str, Any]:
        """Train and prune the missing models, and return the content of `results.json`."""
        self._write_manifest()
        with Progress("study", len(self.points), shown=self.progress, count=counted) as bar:
            all_cells = [self._made(point, self.tasks, bar) for point in self.points]
        cells = [cell for cell in all_cells if "error" not in cell]
        failed = [cell for cell in all_cells if "error" in cell]
        if not cells:
            raise InputError(f"every model failed; {failed[0]['name']}: {failed[0]['error']}")
        pairs = matches(cells, self.config.match_within)
        pair = best_match(pairs)
        known = (cell.get("bigram_loss") for cell in cells)
        results = {
            "cells": [shown_cell(cell) for cell in cells],
            "failed": failed,
            "bigram_loss": next((loss for loss in known if loss is not None), None),
            "target_loss": self.config.prune.target_loss,
            "matches": pairs,
            "pair": pair,
            "verdict": match_verdict(pair, self.config.match_within),
        }
        seeds: list[Cell] = []
        if pair is not None:
            results |= self._of_pair(pair)
            again = self._with_seeds(pair, cells)
            rows = [seed_row(of_seed) for of_seed in again] if self.config.pair_seeds else []
            seeds = [of_seed["sparse"] for of_seed in again]
            results |= {
                "seeds": rows,
                "budgets": self._with_budgets(pair, cells),
                "extra_cells": [shown_cell(cell) for cell in self.extra_cells],
                "verdict": f"{results['verdict']}{seeds_verdict(rows)}",
            }
        return results | {
            "claims": [claim.to_dict() for claim in claims(cells, seeds)],
            "comparisons": [row for count in COUNTS for row in comparisons(cells, seeds, count)],
        }

    def _of_pair(self, pair: JsonRow) -> dict[str, Any]:
        """Prune a pair at all target losses, train the dense model again, compare token losses."""
        targets = sorted(set(self.config.target_losses), reverse=True)
        rows = [self._at_target(pair, target) for target in targets]
        dense = self._point(pair["dense"])
        reseeded = dense.with_seed(self.config.twin_seed)
        if reseeded == dense:
            reseeded = dense.with_seed(dense.seed + 1)
        is_pruned = reseeded.seed in self.config.pair_seeds
        with Progress("dense model, second seed", shown=self.progress) as bar:
            cell = self._made(reseeded, self.tasks if is_pruned else [], bar)
        self._add_to_manifest(reseeded)
        names = [pair["dense"], pair["sparse"], *([] if "error" in cell else [reseeded.name])]
        self._compare_tokens(names)
        return {"targets": rows, "twin": shown_cell(cell)}

    def _with_seeds(self, pair: JsonRow, cells: Sequence[Cell]) -> list[dict[str, Cell]]:
        """Train and prune both models of a pair with each of `pair_seeds`.

        Returns:
            The two cells of each seed that both models were trained with, by kind; those of the
            grid first.
        """
        by_name = {cell["name"]: cell for cell in cells}
        kinds = ("sparse", "dense")
        trained = [{kind: by_name[pair[kind]] for kind in kinds}]
        seeds = self.config.pair_seeds
        with Progress("pair, other seeds", 2 * len(seeds), shown=self.progress) as bar:
            for seed in seeds:
                points = {kind: self._point(pair[kind]).with_seed(seed) for kind in kinds}
                again = {kind: self._extra(point, bar) for kind, point in points.items()}
                if not any("error" in cell for cell in again.values()):
                    trained.append(again)
        return trained

    def _with_budgets(self, pair: JsonRow, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """Compare the sparse model of a pair with dense ones of its width and budget."""
        sparse = next(cell for cell in cells if cell["name"] == pair["sparse"])
        rows = []
        with Progress("equal budgets", len(self.config.budgets), shown=self.progress) as bar:
            for given in self.config.budgets:
                model = load(cell_folder(self.out, sparse["name"]) / "run").config
                point = self._point(sparse["name"])
                dense = budget_point(given, point, self.config, self.out, model)
                cell = self._extra(dense, bar)
                if "error" not in cell:
                    rows.append(budget_row(given, sparse, cell))
        return rows

    def _extra(self, point: FrontierPoint, bar: Progress) -> Cell:
        """Return the cell of a model that is not in the grid, and add it to the manifest."""
        cell = self._made(point, self.tasks, bar)
        if "error" not in cell and point not in self.points:
            self.extra_cells.append(cell)
        self._add_to_manifest(point)
        return cell

    def _point(self, name: str) -> FrontierPoint:
        return next(point for point in self.points if point.name == name)

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
        data, bigram = self.data, self.bigram_loss
        with self._stoppable(point.name):
            cell = run_cell(point, self.config, tasks, self.out, data, self.progress, bigram)
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
        check_vocabulary(self.points, self.config, data.tokenizer.vocab_size)
        return data

    @cached_property
    def bigram_loss(self) -> float | None:
        """Held-out loss of the bigram table alone, nats; None for a vocabulary too large for it."""
        data, common = self.data, self.config.train
        vocab_size = data.tokenizer.vocab_size
        if vocab_size > MAX_VOCAB:
            return None
        batches = eval_batches(data.val, common.model.n_ctx, common.batch_size, common.eval_batches)
        with self._stoppable("the bigram table"):
            return bigram_loss(data.train, batches, vocab_size)

    def _add_to_manifest(self, point: FrontierPoint) -> None:
        if point not in (*self.points, *self.extra_points):
            self.extra_points.append(point)
        self._write_manifest()

    def _write_manifest(self) -> None:
        points = [*self.points, *self.extra_points]
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


__all__ = [
    "FrontierBudget",
    "FrontierClaim",
    "FrontierPair",
    "FrontierResult",
    "FrontierRow",
    "FrontierSeed",
    "frontier",
]
