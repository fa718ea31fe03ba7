"""Compare circuit sizes of sparse and dense models, and match models of equal held-out loss.

A row is one task's result, as `prune_all` returns it. A cell is one model's record, as `cell.py`
writes it. Two rules hold for every mean: a circuit without edges counts as one edge, because a
geometric mean needs a positive number; a task without a circuit is left out, and the number of
tasks is reported with the mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from wirework.errors import number_of
from wirework.renamed_names import old_arguments

JsonRow = Mapping[str, Any]

Count = Literal["n_edges", "n_kept_edges", "paper_edges"]
"""Columns of a row with a number of edges: between the circuit's nodes, kept, and between the nodes
at plain bisection (`NodeCircuit.paper_size`)."""

MEAN_OF: Mapping[str, Count] = {
    "edges": "n_edges",
    "kept_edges": "n_kept_edges",
    "paper_edges": "paper_edges",
}
"""Names of geometric means and the columns that they are of."""


def geometric_mean(sizes: Iterable[int]) -> float | None:
    """Return the geometric mean of circuit sizes, with 0 taken as 1; None for no sizes.

    Source: Gao et al. 2025, sec. 2.2 (the metric).
    """
    logs = [math.log(max(size, 1)) for size in sizes]
    return math.exp(sum(logs) / len(logs)) if logs else None


def sizes_of(rows: Iterable[JsonRow], count: Count = "n_edges") -> dict[str, int]:
    """Return a number of edges by task, for tasks whose circuit reaches the target loss.

    Args:
        rows: rows of `prune_all`.
        count: column that has the number; tasks without it are left out.
    """
    reached = (row for row in rows if row.get("reached"))
    return {row["task"]: row[count] for row in reached if row.get(count) is not None}


def mean_sizes(rows: Iterable[JsonRow]) -> dict[str, float | None]:
    """Return the geometric mean of each number of edges over the circuits that have it.

    Returns:
        `edges`, `kept_edges` and `paper_edges`; None without a circuit that has the number.
    """
    rows = list(rows)
    return {name: geometric_mean(sizes_of(rows, count).values()) for name, count in MEAN_OF.items()}


def compare(
    sparse: Iterable[JsonRow], dense: Iterable[JsonRow], count: Count = "n_edges"
) -> dict[str, Any]:
    """Compare the circuit sizes of two models on the tasks for which both have a circuit.

    Args:
        sparse: rows of `prune_all` for the one model.
        dense: rows of the other.
        count: column that has the number of edges.

    Returns:
        `tasks`, and over these tasks `sparse_edges` and `dense_edges` (geometric means) and `ratio`
        (dense over sparse); all three None if there is no such task.
    """
    sparse_sizes, dense_sizes = sizes_of(sparse, count), sizes_of(dense, count)
    tasks = [task for task in sparse_sizes if task in dense_sizes]
    means = [geometric_mean(sizes[task] for task in tasks) for sizes in (sparse_sizes, dense_sizes)]
    ratio = None if means[0] is None or means[1] is None else means[1] / means[0]
    return {"tasks": tasks, "sparse_edges": means[0], "dense_edges": means[1], "ratio": ratio}


def compare_all(sparse: Iterable[JsonRow], dense: Iterable[JsonRow]) -> dict[str, Any]:
    """Compare two models by each number of edges.

    Returns:
        `compare` by `n_edges`; `kept` and `paper`: the same by kept edges, and by the edges at
        plain bisection (`NodeCircuit.paper_size`).
    """
    sparse, dense = list(sparse), list(dense)
    return {
        **compare(sparse, dense),
        "kept": compare(sparse, dense, "n_kept_edges"),
        "paper": compare(sparse, dense, "paper_edges"),
    }


def matches(cells: Sequence[JsonRow], within: float) -> list[dict[str, Any]]:
    """Pair each sparse cell with the dense one closest in held-out loss, and compare the two.

    Args:
        cells: sparse and dense models, in any order.
        within: largest difference of the losses, as a share of the dense one, that counts as
            `matched`.
    """
    dense = [cell for cell in cells if cell["kind"] == "dense"]
    sparse = [cell for cell in cells if cell["kind"] == "sparse"]
    return [_closest(cell, dense, within) for cell in sparse] if dense else []


def _closest(cell: JsonRow, dense: Sequence[JsonRow], within: float) -> dict[str, Any]:
    loss = cell["val_loss"]
    gaps = [abs(loss - other["val_loss"]) / other["val_loss"] for other in dense]
    apart = min(gaps)
    other = dense[gaps.index(apart)]
    return {
        "sparse": cell["name"],
        "dense": other["name"],
        "sparse_loss": loss,
        "dense_loss": other["val_loss"],
        "apart": apart,
        "matched": apart <= within,
        **compare_all(cell["tasks"], other["tasks"]),
    }


@old_arguments(found="pairs")
def best_match(pairs: Sequence[JsonRow]) -> JsonRow | None:
    """Return the pair to report: among matched pairs, the one with most tasks in common.

    Ties go to the pair closer in loss. If no pair is matched, return the closest one; its `matched`
    is False. The choice never depends on the ratio.
    """
    matched = [pair for pair in pairs if pair["matched"]]
    if matched:
        return min(matched, key=lambda pair: (-len(_compared(pair)["tasks"]), pair["apart"]))
    return min(pairs, key=lambda pair: pair["apart"], default=None)


def match_verdict(pair: JsonRow | None, within: float) -> str:
    """Return one sentence with the result of a pair."""
    if pair is None:
        return "no pair: it takes a sparse and a dense model"
    closeness = f"held-out losses {100 * pair['apart']:.1f}% apart"
    if not pair["matched"]:
        closeness = f"no dense model within {100 * within:g}% of a sparse one: {closeness}"
    sizes = _compared(pair)
    if sizes["ratio"] is None:
        return f"{closeness}; no task has a circuit in both"
    edges = "the edges" if sizes is pair else "the kept edges"
    words = (
        f"{closeness}; over {number_of(len(sizes['tasks']), 'task')} the dense circuits have "
        f"{sizes['ratio']:.1f} times {edges}"
    )
    paper = pair.get("paper", {})
    if paper.get("ratio") is None:
        return words
    tasks = number_of(len(paper["tasks"]), "task")
    return f"{words}; at plain bisection, as in the paper, {paper['ratio']:.1f} times ({tasks})"


def _compared(pair: JsonRow) -> JsonRow:
    """Return the comparison by `n_edges`, or by kept edges if only these are recorded."""
    kept: JsonRow = pair.get("kept", pair)
    return kept if pair["ratio"] is None and kept["ratio"] is not None else pair
