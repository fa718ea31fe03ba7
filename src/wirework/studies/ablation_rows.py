"""The table of the ablation study: each choice beside the base model, with the spread of seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from wirework.studies.ablation_choices import BASE
from wirework.studies.compare import geometric_mean, sizes_of
from wirework.studies.seed_spread import SeedSpread, typical_spread
from wirework.summaries import Report

Cell = Mapping[str, Any]

_LEVEL = 0.01
"""Share of cases in which chance alone makes a verdict: of 30 choices, 0.3 are expected."""

TITLES = (
    "choice", "changes", "seeds", "held-out loss", "change", "verdict", "nonzero", "circuits",
    "edges", "edges / base",
)  # fmt: skip
"""Titles of the columns of the table."""


@dataclass(frozen=True, repr=False)
class ChoiceRow(Report):
    """The models of one choice."""

    choice: str
    changes: str
    """Changed settings; empty for the base model."""
    n_seeds: int
    """Seeds with a finished model."""
    val_loss: float | None
    """Held-out loss in nats per token, mean over seeds."""
    val_loss_low: float | None
    """Lowest of the seeds."""
    val_loss_high: float | None
    """Highest of the seeds."""
    loss_change: float | None
    """Mean minus that of the base model."""
    loss_verdict: str
    """`better` or `worse` if the change is larger than what chance exceeds in 1% of cases, by the
    typical spread over seeds of all choices and the choice's own if that is larger; else `within
    spread`. Empty for the base model, or if no choice has two seeds."""
    nonzero_fraction: float | None
    """Share of nonzero weights, mean over seeds."""
    n_circuits: int
    """Circuits that reach the target loss, of `n_searched`, over tasks and seeds."""
    n_searched: int
    edges: float | None
    """Geometric mean over these circuits."""
    edges_low: float | None
    """Lowest geometric mean of a seed."""
    edges_high: float | None
    """Highest geometric mean of a seed."""
    edge_ratio: float | None
    """Edges over those of the base model, geometric mean over tasks and seeds that both reach."""
    n_compared: int
    """Circuits in that mean."""
    error: str | None
    """Why a model failed; the first of the seeds."""


def choice_rows(cells: Sequence[Cell]) -> list[ChoiceRow]:
    """Return a row for each choice, in the order of the cells.

    Args:
        cells: records of the models: `choice, changes, seed`, and `val_loss, nonzero_fraction,
            tasks` or `error`.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell["choice"], []).append(cell)
    spread = typical_spread(_losses(group) for group in groups.values())
    return [_row(group, groups.get(BASE, []), spread) for group in groups.values()]


def markdown_table(rows: Sequence[ChoiceRow]) -> str:
    """Return the table as Markdown."""
    lines = [list(TITLES), ["---"] * len(TITLES), *map(shown, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def shown(row: ChoiceRow) -> list[str]:
    """Return the texts of a row of the table; brackets hold the range over seeds."""
    return [
        row.choice,
        row.changes or "-",
        str(row.n_seeds),
        _ranged(row.val_loss, row.val_loss_low, row.val_loss_high, ".4f"),
        "-" if row.loss_change is None else f"{row.loss_change:+.4f}",
        row.error or row.loss_verdict or "-",
        "-" if row.nonzero_fraction is None else f"{row.nonzero_fraction:.4g}",
        f"{row.n_circuits} of {row.n_searched}",
        _ranged(row.edges, row.edges_low, row.edges_high, ".3g"),
        "-" if row.edge_ratio is None else f"{row.edge_ratio:.3g} ({row.n_compared})",
    ]


def _ranged(value: float | None, low: float | None, high: float | None, digits: str) -> str:
    if value is None or low is None or high is None:
        return "-"
    return f"{value:{digits}} ({low:{digits}} to {high:{digits}})"


def _losses(cells: Sequence[Cell]) -> list[float]:
    """Return the held-out losses of the finished models."""
    return [cell["val_loss"] for cell in cells if "error" not in cell]


def _row(cells: Sequence[Cell], base: Sequence[Cell], spread: SeedSpread | None) -> ChoiceRow:
    trained = [cell for cell in cells if "error" not in cell]
    losses, base_losses = _losses(cells), _losses(base)
    sizes = [list(sizes_of(cell["tasks"]).values()) for cell in trained]
    by_seed = [found for found in map(geometric_mean, sizes) if found is not None]
    is_base = cells[0]["choice"] == BASE
    ratios = [] if is_base else _ratios(trained, base)
    compared = losses and base_losses and not is_base
    errors = [cell["error"] for cell in cells if "error" in cell]
    return ChoiceRow(
        choice=cells[0]["choice"],
        changes=cells[0]["changes"],
        n_seeds=len(trained),
        val_loss=mean(losses) if losses else None,
        val_loss_low=min(losses, default=None),
        val_loss_high=max(losses, default=None),
        loss_change=mean(losses) - mean(base_losses) if compared else None,
        loss_verdict=_verdict(losses, base_losses, spread) if compared else "",
        nonzero_fraction=mean(cell["nonzero_fraction"] for cell in trained) if trained else None,
        n_circuits=sum(map(len, sizes)),
        n_searched=sum(len(cell["tasks"]) for cell in trained),
        edges=geometric_mean(size for found in sizes for size in found),
        edges_low=min(by_seed, default=None),
        edges_high=max(by_seed, default=None),
        edge_ratio=None if not ratios else _ratio_mean(ratios),
        n_compared=len(ratios),
        error=errors[0] if errors else None,
    )


def _ratios(cells: Sequence[Cell], base: Sequence[Cell]) -> list[tuple[int, int]]:
    """Return the sizes of a choice and of the base model, by task and seed that both reach."""
    of_base = {cell["seed"]: sizes_of(cell["tasks"]) for cell in base if "error" not in cell}
    return [
        (size, of_base[cell["seed"]][task])
        for cell in cells
        for task, size in sizes_of(cell["tasks"]).items()
        if task in of_base.get(cell["seed"], {})
    ]


def _ratio_mean(pairs: Sequence[tuple[int, int]]) -> float:
    ours, theirs = (geometric_mean(sizes) for sizes in zip(*pairs, strict=True))
    assert ours is not None
    assert theirs is not None
    return ours / theirs


def _verdict(losses: Sequence[float], base: Sequence[float], spread: SeedSpread | None) -> str:
    if spread is None:
        return ""
    change = mean(losses) - mean(base)
    if abs(change) <= spread.least_difference(_LEVEL, losses, base):
        return "within spread"
    return "worse" if change > 0 else "better"
