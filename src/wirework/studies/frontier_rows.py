"""The rows of the frontier study: those that it returns, and cells as `results.json` has them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from wirework.circuits.validation.validation_report import WORDS
from wirework.studies.cell import Cell
from wirework.studies.claims import FrontierClaim
from wirework.studies.compare import JsonRow, mean_sizes
from wirework.summaries import Report, absent


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
    l0_count: int | None = None
    """Nonzero weights that were asked for; `n_nonzero` is measured."""
    bigram_loss: float | None = None
    """Held-out loss of the bigram table alone on the same batches, nats per token."""
    n_faithful: int | None = None
    """Circuits of `n_circuits` that the short report of `validate`, with resampling, calls
    faithful. It never does: that takes the searched controls of the full report."""
    n_open: int | None = None
    """Those with no failed criterion."""
    n_not_faithful: int | None = None
    """Those with a failed criterion."""
    lr: float | None = None
    """Learning rate, chosen by the sweep if there is one."""
    multiply_adds: float | None = None
    """Multiply-adds of training (`multiply_adds.py`); None for a model of an earlier version."""
    seconds: float | None = None
    """Wall-clock time of training."""


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
class FrontierSeed(Report):
    """The matched pair, both models trained with one seed."""

    seed: int
    sparse: str
    dense: str
    sparse_loss: float
    """Held-out loss, nats per token."""
    dense_loss: float
    bigram_loss: float | None
    """The same of the bigram table alone."""
    n_tasks: int
    """Tasks for which both have a circuit."""
    ratio: float | None
    """Dense edges over sparse edges, geometric means over these tasks."""
    kept_ratio: float | None
    paper_ratio: float | None


@dataclass(frozen=True, repr=False)
class FrontierBudget(Report):
    """The sparse model of the pair beside a dense one of equal width, tokens or compute."""

    given: str
    """What both have: `tokens` or `compute` (multiply-adds of training)."""
    sparse: str
    dense: str
    sparse_loss: float
    dense_loss: float
    bigram_loss: float | None
    sparse_tokens: int | None
    dense_tokens: int | None
    sparse_multiply_adds: float | None
    dense_multiply_adds: float | None
    sparse_seconds: float | None
    """Wall-clock time of training."""
    dense_seconds: float | None
    n_tasks: int
    ratio: float | None
    kept_ratio: float | None
    paper_ratio: float | None


@dataclass(frozen=True, repr=False)
class FrontierResult(Report):
    """Table of the study, its verdict, and paths of its files."""

    cells: tuple[FrontierRow, ...]
    verdict: str
    """One sentence."""
    pair: FrontierPair | None
    figures: tuple[str, ...]
    results: str
    claims: tuple[FrontierClaim, ...] = ()
    """The two claims of Fig. 3, by each count of edges."""
    seeds: tuple[FrontierSeed, ...] = ()
    """The pair with each seed; none without `pair_seeds`."""
    budgets: tuple[FrontierBudget, ...] = ()
    """The sparse model of the pair beside dense ones of equal tokens and of equal compute."""


_Row = TypeVar("_Row", FrontierSeed, FrontierBudget)


def shown_cell(cell: Cell) -> Cell:
    """Return a cell for `results.json`: its mean size added, its settings left to the manifest."""
    rows = cell.get("tasks", [])
    kept = {name: value for name, value in cell.items() if name not in ("settings", "machine")}
    n_circuits = sum(bool(row.get("reached")) for row in rows)
    return kept | {"n_circuits": n_circuits, **mean_sizes(rows), **verdict_counts(rows)}


def verdict_counts(rows: Iterable[JsonRow]) -> dict[str, int | None]:
    """Return how many circuits have each verdict; None where a circuit has no recorded one.

    Args:
        rows: rows of `prune_all`; those without a circuit that reaches the target are left out.
    """
    verdicts = [row.get("verdict") for row in rows if row.get("reached")]
    counts = {faithful: verdicts.count(word) for faithful, word in WORDS.items()}
    known: dict[bool | None, int | None] = {**counts}
    if None in verdicts:
        known = dict.fromkeys(counts)
    return {"n_faithful": known[True], "n_open": known[None], "n_not_faithful": known[False]}


def pair_of(pair: JsonRow) -> FrontierPair:
    """Return a pair of `matches` as it is returned."""
    return FrontierPair(
        sparse=pair["sparse"],
        dense=pair["dense"],
        apart=pair["apart"],
        ratio=pair["ratio"],
        kept_ratio=pair["kept"]["ratio"],
        paper_ratio=pair["paper"]["ratio"],
    )


def row_of(cell: Cell) -> FrontierRow:
    """Return a cell's row in the returned table."""
    values: dict[str, Any] = {column.name: cell.get(column.name) for column in fields(FrontierRow)}
    return FrontierRow(**values)


def report_of(kind: type[_Row], row: JsonRow) -> _Row:
    """Return a row of `seeds` or `budgets` in `results.json` as it is returned."""
    compared = {
        "n_tasks": len(row["tasks"]),
        "kept_ratio": row["kept"]["ratio"],
        "paper_ratio": row["paper"]["ratio"],
    }
    values = {**row, **compared}
    return kind(**{column.name: values[column.name] for column in fields(kind)})
