"""Do the two claims of Fig. 3 hold in a frontier study? Computed from its numbers.

(a) At fixed width, lower L0 gives smaller circuits. (b) At fixed L0, larger width improves both
held-out loss and circuit size. Each line of models (equal width or equal L0, and equal activation
fraction) is judged by its two ends, over the tasks for which both have a circuit. Two models are
told apart in loss if they differ by more than chance exceeds in 5% of cases, by the seeds of the
matched sparse model; in size, if the mean log ratio of their circuits exceeds this too, over the
same tasks, and what chance exceeds in 5% of cases by the spread of the ratios over tasks. Without a
second seed nothing is told apart. Models whose measured L0 is not the one that was asked for (a
floor kept more, in studies of earlier versions) are left out.
Source: Gao et al. 2025, Fig. 3.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from wirework.errors import number_of
from wirework.studies.compare import Count as Column
from wirework.studies.compare import sizes_of
from wirework.studies.seed_spread import spread_of, t_quantile
from wirework.summaries import Report

JsonRow = Mapping[str, Any]
Outcome = Literal[
    "holds", "holds in part", "mixed", "does not hold", "not told apart", "not measured"
]

L0_CLAIM = "at fixed width, lower L0 gives smaller circuits"
WIDTH_CLAIM = "at fixed L0, larger width improves both loss and circuit size"

COUNTS: Mapping[Column, str] = {
    "n_edges": "edges",
    "paper_edges": "edges at plain bisection",
}
"""Counts of edges by which the claims are judged, and their names."""


_LEVEL = 0.05
"""Share of cases in which chance alone tells two models apart."""
_L0_TOLERANCE = 0.02
"""Largest difference of the measured L0 from the one asked for, as a share of the latter."""


@dataclass(frozen=True, repr=False)
class FrontierClaim(Report):
    """A claim of the paper, judged by one count of edges."""

    claim: str
    count: str
    """`edges`, or `edges at plain bisection` as in the paper."""
    outcome: Outcome
    n_lines: int
    """Lines of models that are compared."""
    n_for: int
    """Lines that are told apart as the claim says."""
    n_against: int
    """Lines that are told apart the other way; for (b) in loss or size."""
    words: str
    """The outcome with its numbers, in a sentence."""


def comparisons(
    cells: Iterable[JsonRow], seeds: Sequence[JsonRow], count: Column = "n_edges"
) -> list[dict[str, Any]]:
    """Compare the two ends of each line of sparse models.

    Args:
        cells: the models of the grid; dense ones and those with another L0 than asked for are left
            out.
        seeds: the matched sparse model with each of its seeds.
        count: column that has the number of edges.

    Returns:
        JSON rows: `claim`, `count`, `first` (lower L0 or larger width) and `second`, `n_tasks`,
        `size_ratio` (first over second, geometric mean), `size_noise` (smallest ratio, or its
        inverse, that is told apart; None: unknown), `loss_change` (first minus second, nats),
        `loss_noise` (smallest change that is told apart), `size` and `loss` (`lower`, `higher` or
        `not told apart`) and `agrees`: whether the line is told apart as the claim says; None if it
        is not told apart.
    """
    sparse = [cell for cell in cells if cell["kind"] == "sparse" and _has_its_l0(cell)]
    rows = []
    for claim, equal, along in (
        (L0_CLAIM, "width", "l0_count"),
        (WIDTH_CLAIM, "l0_count", "width"),
    ):
        for line in _lines(sparse, equal):
            ends = sorted(line, key=lambda cell: cell[along], reverse=claim == WIDTH_CLAIM)
            if ends[0][along] != ends[-1][along]:
                rows.append(_compared(claim, ends[0], ends[-1], seeds, count))
    return rows


def claims(cells: Iterable[JsonRow], seeds: Sequence[JsonRow]) -> list[FrontierClaim]:
    """Judge both claims by each count of edges; arguments as those of `comparisons`."""
    cells = list(cells)
    n_left_out = sum(cell["kind"] == "sparse" and not _has_its_l0(cell) for cell in cells)
    return [
        _judged(claim, count, comparisons(cells, seeds, count), len(seeds), n_left_out)
        for claim in (L0_CLAIM, WIDTH_CLAIM)
        for count in COUNTS
    ]


def _lines(cells: Iterable[JsonRow], equal: str) -> list[list[JsonRow]]:
    lines: dict[tuple[int, float], list[JsonRow]] = {}
    for cell in cells:
        lines.setdefault((cell[equal], cell["act_fraction"]), []).append(cell)
    return [lines[key] for key in sorted(lines)]


def _has_its_l0(cell: JsonRow) -> bool:
    """Return whether the measured L0 of a sparse model is the one that was asked for."""
    asked: int = cell["l0_count"]
    measured: int = cell["n_nonzero"]
    return abs(measured - asked) <= _L0_TOLERANCE * asked


def _compared(
    claim: str, first: JsonRow, second: JsonRow, seeds: Sequence[JsonRow], count: Column
) -> dict[str, Any]:
    """Compare two models; the claim says that the circuits of `first` are smaller."""
    sizes, others = _logs(first, count), _logs(second, count)
    by_task = {task: size - others[task] for task, size in sizes.items() if task in others}
    ratios = list(by_task.values())
    change = first["val_loss"] - second["val_loss"]
    loss_noise = _chance([cell["val_loss"] for cell in seeds])
    size_noise = _size_noise(by_task, [_logs(cell, count) for cell in seeds])
    size = _direction(mean(ratios) if ratios else 0.0, size_noise)
    loss = _direction(change, loss_noise)
    return {
        "claim": claim,
        "count": COUNTS[count],
        "first": first["name"],
        "second": second["name"],
        "n_tasks": len(ratios),
        "size_ratio": math.exp(mean(ratios)) if ratios else None,
        "size_noise": None if size_noise is None else math.exp(size_noise),
        "loss_change": change,
        "loss_noise": loss_noise,
        "size": size,
        "loss": loss,
        "agrees": _agrees([size] if claim == L0_CLAIM else [size, loss]),
    }


def _chance(runs: Sequence[float]) -> float | None:
    """Return the difference of two single runs that chance exceeds; None without a second run."""
    spread = spread_of(runs)
    return None if spread is None else spread.least_difference(_LEVEL, runs[:1], runs[:1])


def _size_noise(ratios: Mapping[str, float], seeds: Sequence[Mapping[str, float]]) -> float | None:
    """Return the mean log ratio that chance exceeds, by seeds and by tasks; None if unknown.

    Args:
        ratios: log ratios by task.
        seeds: for each seed of one model, the log sizes of its circuits by task.
    """
    shared = [task for task in ratios if all(task in sizes for sizes in seeds)]
    if len(ratios) < 2 or not shared:
        return None
    by_seeds = _chance([mean(sizes[task] for task in shared) for sizes in seeds])
    if by_seeds is None:
        return None
    error = stdev(ratios.values()) / math.sqrt(len(ratios))
    return max(by_seeds, t_quantile(_LEVEL, len(ratios) - 1) * error)


def _logs(cell: JsonRow, count: Column) -> dict[str, float]:
    """Return log sizes by task; a circuit without edges counts as one edge."""
    return {task: math.log(max(size, 1)) for task, size in sizes_of(cell["tasks"], count).items()}


def _direction(change: float, noise: float | None) -> str:
    if noise is None or abs(change) <= noise:
        return "not told apart"
    return "lower" if change < 0 else "higher"


def _agrees(directions: Sequence[str]) -> bool | None:
    if "higher" in directions:
        return False
    return True if set(directions) == {"lower"} else None


def _judged(
    claim: str, count: Column, rows: Sequence[JsonRow], n_seeds: int, n_left_out: int
) -> FrontierClaim:
    rows = [row for row in rows if row["claim"] == claim]
    n_for, n_against = (sum(row["agrees"] is held for row in rows) for held in (True, False))
    outcome = _outcome(len(rows), n_for, n_against)
    words = f"{claim}: {outcome}"
    if rows:
        open_lines = len(rows) - n_for - n_against
        words += (
            f"; by {COUNTS[count]}, of {number_of(len(rows), 'line')} {n_for} for it, "
            f"{n_against} against it, {open_lines} not told apart{_numbers(claim, rows)}"
            f"; {_noise_words(rows, n_seeds)}"
        )
    if n_left_out:
        words += f"; left out: {number_of(n_left_out, 'model')} with another L0 than was asked for"
    return FrontierClaim(claim, COUNTS[count], outcome, len(rows), n_for, n_against, words)


def _outcome(n_lines: int, n_for: int, n_against: int) -> Outcome:
    if not n_lines:
        return "not measured"
    if n_for and n_against:
        return "mixed"
    if n_against:
        return "does not hold"
    if n_for == n_lines:
        return "holds"
    return "holds in part" if n_for else "not told apart"


def _numbers(claim: str, rows: Sequence[JsonRow]) -> str:
    """Return the ranges of the measured ratios and, for (b), of the changes of the loss."""
    ratios = sorted(row["size_ratio"] for row in rows if row["size_ratio"] is not None)
    words = ""
    if ratios:
        ends = "at the lower L0" if claim == L0_CLAIM else "at the larger width"
        words = f"; circuits {ends} have {_span(ratios, '.2f')} times the edges"
    if claim == WIDTH_CLAIM:
        changes = sorted(row["loss_change"] for row in rows)
        directions = Counter(row["loss"] for row in rows)
        told = ", ".join(f"{n} {name}" for name, n in sorted(directions.items()))
        words += f"; the loss changes by {_span(changes, '+.3f')} nats ({told})"
    return words


def _span(values: Sequence[float], digits: str) -> str:
    """Return the range of sorted values as text."""
    first, last = f"{values[0]:{digits}}", f"{values[-1]:{digits}}"
    return first if first == last else f"{first} to {last}"


def _noise_words(rows: Sequence[JsonRow], n_seeds: int) -> str:
    loss_noise = rows[0]["loss_noise"]
    if loss_noise is None:
        return "one seed: the spread over seeds is not known, so nothing is told apart"
    words = (
        f"by {number_of(n_seeds, 'seed')} of one model, two single models are told apart beyond "
        f"{loss_noise:.3f} nats"
    )
    factors = sorted(row["size_noise"] for row in rows if row["size_noise"] is not None)
    if not factors:
        return f"{words}; too few tasks in common to tell sizes apart"
    return f"{words} and a factor of {_span(factors, '.2f')} in edges"
