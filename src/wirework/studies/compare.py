"""Circuit sizes of models set side by side, and which dense model matches a sparse one.

A row is a task's as `prune_all` returns it, a cell a model's as `cell.py` writes it. Two rules hold
everywhere: a circuit of no edges counts as one edge, which a geometric mean needs, and a task
without a circuit is left out of a mean, whose number of tasks is always given beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wirework.errors import number_of

Row = Mapping[str, Any]


def geometric_mean(sizes: Iterable[int]) -> float | None:
    """Return the geometric mean of circuit sizes, 0 taken as 1; None of nothing.

    Source: Gao et al. 2025, sec. 2.2 (the metric).
    """
    logs = [math.log(max(size, 1)) for size in sizes]
    return math.exp(sum(logs) / len(logs)) if logs else None


def sizes_of(rows: Iterable[Row]) -> dict[str, int]:
    """Return task to edges, of the tasks that have a circuit which reaches the target."""
    return {row["task"]: row["n_edges"] for row in rows if row.get("reached")}


def compare(sparse: Iterable[Row], dense: Iterable[Row]) -> dict[str, Any]:
    """Compare two models on the tasks that both have a circuit for.

    Returns:
        `tasks`, and over them `sparse_edges`, `dense_edges` (geometric means) and `ratio`, how many
        times smaller the sparse ones are; None where there is no such task.
    """
    few, many = sizes_of(sparse), sizes_of(dense)
    tasks = [task for task in few if task in many]
    means = [geometric_mean(sizes[task] for task in tasks) for sizes in (few, many)]
    ratio = None if means[0] is None or means[1] is None else means[1] / means[0]
    return {"tasks": tasks, "sparse_edges": means[0], "dense_edges": means[1], "ratio": ratio}


def matches(cells: Sequence[Row], within: float) -> list[dict[str, Any]]:
    """Return, for each sparse cell, the dense one closest in held-out loss, and their comparison.

    Args:
        cells: of both kinds, in any order.
        within: the share of the dense loss that the two may be apart, for `matched`.
    """
    dense = [cell for cell in cells if cell["kind"] == "dense"]
    sparse = [cell for cell in cells if cell["kind"] == "sparse"]
    return [_closest(cell, dense, within) for cell in sparse] if dense else []


def _closest(cell: Row, dense: Sequence[Row], within: float) -> dict[str, Any]:
    loss = cell["val_loss"]
    logit_diffs = [abs(loss - other["val_loss"]) / other["val_loss"] for other in dense]
    apart = min(logit_diffs)
    other = dense[logit_diffs.index(apart)]
    return {
        "sparse": cell["name"],
        "dense": other["name"],
        "sparse_loss": loss,
        "dense_loss": other["val_loss"],
        "apart": apart,
        "matched": apart <= within,
        **compare(cell["tasks"], other["tasks"]),
    }


def best_match(found: Sequence[Row]) -> Row | None:
    """Return the pair to report: of those that match, the one with most tasks in common.

    Ties go to the closer one. Where no pair matches, it is the closest, and `matched` is False. The
    ratio plays no part in the choice.
    """
    matched = [pair for pair in found if pair["matched"]]
    if matched:
        return min(matched, key=lambda pair: (-len(pair["tasks"]), pair["apart"]))
    return min(found, key=lambda pair: pair["apart"], default=None)


def verdict(pair: Row | None, within: float) -> str:
    """Say in one sentence what a pair shows."""
    if pair is None:
        return "no pair: it takes a sparse and a dense model"
    held = f"held-out losses {100 * pair['apart']:.1f}% apart"
    if not pair["matched"]:
        held = f"no dense model within {100 * within:g}% of a sparse one: {held}"
    if pair["ratio"] is None:
        return f"{held}; no task has a circuit in both"
    count = len(pair["tasks"])
    return (
        f"{held}; over {number_of(count, 'task')} the dense circuits have "
        f"{pair['ratio']:.1f} times the edges"
    )
